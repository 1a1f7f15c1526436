//! Of which packs a world may use pages.
//!
//! A pack travels as a whole: who gets a world gets all pages of its packs, also
//! those of the worlds that it shares them with. Among worlds that descend from
//! the same first one that is no more than branches of one state carrying what
//! others had; with a stranger's pack, a world would give the stranger's memory
//! away. So pages are known twice: to their own lineage, and to those who want
//! all. For the lineage they are looked up under another name, made of theirs and
//! of the lineage's.

use crate::digest::Digest;

use super::page::PageHash;

/// Of which packs of a store pages may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sharing {
    /// The lineage: any digest that its worlds have in common.
    pub origin: Digest,
    /// Use pages of all packs.
    pub all: bool,
}

impl Sharing {
    /// The name to look a page up by.
    pub(super) fn wanted(&self, hash: &PageHash) -> PageHash {
        match self.all {
            true => *hash,
            false => hash.within(&self.origin),
        }
    }

    /// The names to make pages known by to their lineage.
    pub(super) fn own(&self, hashes: &[PageHash]) -> Vec<PageHash> {
        hashes
            .iter()
            .map(|hash| hash.within(&self.origin))
            .collect()
    }
}
