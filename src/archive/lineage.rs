//! `lineage.json` in a checkpoint archive: which world it follows.
//!
//! Where that one is in the store, the import is packed on it as the original was, and
//! so costs as little and gets the same digest. It is a hint: what it says wrongly
//! makes the world larger, and no other.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::json::{self, Limits};
use crate::store::{Lease, Store};
use crate::world::artifact::{self, Artifact, Parent, parent_of};
use crate::{Error, Result};

pub(super) const LINEAGE: &str = "lineage.json";

pub(super) const LIMITS: Limits = Limits {
    bytes: 4096,
    depth: 4,
    string: 256,
};

/// What the file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Lineage {
    /// The world's rootfs stands on layers of its parent's.
    former_state: bool,
    /// Digest of the parent's manifest.
    parent: Digest,
}

impl Lineage {
    /// That of a world in the store, if it follows one.
    pub fn of(store: &Store, artifact: &Artifact) -> Option<Lineage> {
        let parent = parent_of(&artifact.annotations)?;
        let on_parent = || {
            let (parent, _) = artifact::load(store, &parent).ok()?;
            let lowest = artifact.rootfs.first()?;
            Some(parent.rootfs.first()? == lowest)
        };
        let former_state = artifact.rootfs.len() > 1 || on_parent().unwrap_or(false);
        Some(Lineage {
            former_state,
            parent,
        })
    }

    /// Reads the file from untrusted bytes.
    pub fn parse(bytes: &[u8]) -> Result<Lineage> {
        json::parse(bytes, &LIMITS).map_err(|error: Error| error.within(LINEAGE))
    }

    /// The file's bytes.
    pub fn to_bytes(self) -> Result<Vec<u8>> {
        json::to_bytes(&self)
    }

    /// The parent, if the lease's store has it whole.
    pub fn parent(self, lease: &Lease) -> Option<Parent> {
        let there = lease.store().blob_size(&self.parent).ok()?.is_some();
        let whole = there && lease.hold_world(&self.parent).is_ok();
        whole.then_some(Parent {
            world: self.parent,
            former_state: self.former_state,
        })
    }
}
