//! Looking into the store: finding a world, listing all.

use std::collections::BTreeMap;

use oci_spec::image::{ANNOTATION_REF_NAME, Descriptor};
use serde::Serialize;

use super::index::{Index, name_of};
use super::layout::Store;
use super::reach::Reach;
use super::reference::{Reference, WorldName};
use crate::digest::Digest;
use crate::{Error, ErrorKind, Result};

/// How much of the store a world takes, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// Of what no other world needs: this much [`Store::gc`] could free without it.
    pub own: u64,
    /// Of what others need too.
    pub shared: u64,
}

/// A world in the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Of its manifest.
    pub digest: Digest,
    /// Of its entry in the index.
    pub annotations: BTreeMap<String, String>,
}

/// One world (or base image) of the store.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct World {
    /// Of its manifest.
    pub digest: Digest,
    /// What it is called: `NAME:TAG`; empty where it has no name.
    pub names: Vec<String>,
    /// What it is, in media types.
    pub media_type: String,
    /// What sort of artifact it is.
    pub artifact_type: Option<String>,
    /// Of its entry in the index.
    pub annotations: BTreeMap<String, String>,
    /// `None` where its manifest cannot be read: see [`Store::fsck`].
    pub sizes: Option<Sizes>,
}

impl Store {
    /// The digest of the world that is meant.
    ///
    /// [`ErrorKind::NotFound`] where there is none, [`ErrorKind::InvalidInput`] where the
    /// beginning of a digest fits several.
    pub fn resolve(&self, world: &Reference) -> Result<Digest> {
        self.index()
            .and_then(|index| index.resolve(world))
            .map_err(|error| self.blame(error))
    }

    /// Finds a world and holds it, with all that belongs to it, in a lease. Errors as
    /// [`Store::resolve`] and [`Lease::hold_world`](super::Lease::hold_world).
    pub fn resolve_held(&self, world: &Reference, lease: &super::Lease) -> Result<Digest> {
        let digest = self.resolve(world)?;
        lease.hold_world(&digest)?;
        Ok(digest)
    }

    /// All worlds, oldest first, by what the index alone says: no manifest is read.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let index = self.index().map_err(|error| self.blame(error))?;
        let entries = index.worlds().into_iter().map(|(digest, entry, _)| Entry {
            digest,
            annotations: annotations(entry),
        });
        Ok(entries.collect())
    }

    /// All worlds, oldest first.
    pub fn list(&self) -> Result<Vec<World>> {
        let index = self.index().map_err(|error| self.blame(error))?;
        let worlds = index.worlds();
        let reaches: Vec<_> = worlds
            .iter()
            .map(|(_, entry, _)| Reach::of(self, entry).unwrap_or_default())
            .collect();
        let mut users: BTreeMap<Digest, usize> = BTreeMap::new();
        for digest in reaches.iter().flat_map(|reach| reach.blobs.keys()) {
            *users.entry(*digest).or_default() += 1;
        }
        let listed = worlds.into_iter().zip(&reaches);
        let listed = listed.map(|((digest, entry, names), reach)| World {
            digest,
            names: names.into_iter().map(str::to_owned).collect(),
            media_type: entry.media_type().to_string(),
            artifact_type: self.artifact_type(&digest, entry),
            annotations: annotations(entry),
            sizes: sizes(reach, &users),
        });
        Ok(listed.collect())
    }

    /// Other tools leave it out of the index.
    fn artifact_type(&self, digest: &Digest, entry: &Descriptor) -> Option<String> {
        let told = entry.artifact_type().clone();
        let found = || self.document(digest).ok()?.artifact_type().cloned();
        told.or_else(found).map(|artifact| artifact.to_string())
    }
}

/// Of an entry in the index, without its name.
fn annotations(entry: &Descriptor) -> BTreeMap<String, String> {
    let all = entry.annotations().iter().flatten();
    all.filter(|(key, _)| *key != ANNOTATION_REF_NAME)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn sizes(reach: &Reach, users: &BTreeMap<Digest, usize>) -> Option<Sizes> {
    let mut sizes = Sizes::default();
    for (digest, reached) in reach.blobs.iter().filter(|(_, reached)| reached.required) {
        let size = reached.size.unwrap_or_default();
        let sum = match users.get(digest) {
            Some(1) => &mut sizes.own,
            _ => &mut sizes.shared,
        };
        *sum = sum.saturating_add(size);
    }
    reach.faults.is_empty().then_some(sizes)
}

impl Index {
    pub(super) fn resolve(&self, world: &Reference) -> Result<Digest> {
        if let Some(name) = self.name_meant(world)
            && let Some(digest) = self.named(&name)?
        {
            return Ok(digest);
        }
        let prefix = match world {
            Reference::Name(_) => None,
            Reference::Digest(digest) => Some(digest.hex()),
            Reference::Prefix(prefix) | Reference::NameOrPrefix(_, prefix) => Some(prefix.clone()),
        };
        let fits = |digest: &Digest| {
            let prefix = prefix.as_deref();
            prefix.is_some_and(|prefix| digest.hex().starts_with(prefix))
        };
        let worlds = self.worlds().into_iter().map(|(digest, ..)| digest);
        let found: Vec<_> = worlds.filter(fits).collect();
        match found.as_slice() {
            [digest] => Ok(*digest),
            [] => Err(Error::new(
                ErrorKind::NotFound,
                format!("there is no world {world}: `world ls` shows all"),
            )),
            several => Err(Error::new(
                ErrorKind::InvalidInput,
                format!("{world} fits {} worlds: write more digits", several.len()),
            )),
        }
    }

    /// The name in the index that a reference means, if any. A name that another tool wrote
    /// without a tag is meant by just that.
    pub(super) fn name_meant(&self, world: &Reference) -> Option<String> {
        let name = match world {
            Reference::Name(name) | Reference::NameOrPrefix(name, _) => name,
            Reference::Digest(_) | Reference::Prefix(_) => return None,
        };
        let has = |wanted: &str| {
            let mut names = self.entries.iter().filter_map(name_of);
            names.any(|name| name == wanted)
        };
        let bare = || has(name.name()) && name.tag() == super::reference::DEFAULT_TAG;
        match WorldName::to_string(name) {
            whole if !has(&whole) && bare() => Some(name.name().to_owned()),
            whole => Some(whole),
        }
    }
}
