//! Of which packs a world may use pages.
//!
//! A pack travels as a whole: who gets a world gets all pages of its packs, also
//! those of the worlds that it shares them with. Among the states of one
//! container that is no more than a child carrying what its parent had; with a
//! stranger's pack, a world would give the stranger's memory away.

use std::collections::BTreeSet;

use crate::digest::Digest;

/// Of which packs of a store pages may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sharing {
    /// Of all.
    All,
    /// Of these.
    Only(BTreeSet<Digest>),
}

impl Sharing {
    pub(super) fn allows(&self, pack: &Digest) -> bool {
        match self {
            Sharing::All => true,
            Sharing::Only(packs) => packs.contains(pack),
        }
    }
}
