//! From an address to the place of its page, for one address space.

use super::index::Index;
use super::place::Place;
use crate::criu::pagemap::{Extent, Space};

/// Where the pages of an address space are.
#[derive(Debug, Default)]
pub struct Addresses {
    /// By rising address.
    runs: Vec<(Extent, Place)>,
}

impl Addresses {
    /// Those of a space in an index; `None` where it has no such space.
    pub fn of(index: &Index, space: Space) -> Option<Addresses> {
        let runs = index.addresses(space)?.collect();
        Some(Addresses { runs })
    }

    /// Where a page is (its number is its address divided by 4096), and how many from there on
    /// have their places one after the other. `None` where the world has no such page.
    pub fn find(&self, page: u64) -> Option<(Place, u64)> {
        let after = self.runs.partition_point(|(run, _)| run.page <= page);
        let (run, place) = self.runs.get(after.checked_sub(1)?)?;
        let skipped = page - run.page;
        let more = run.count.checked_sub(skipped).filter(|more| *more > 0)?;
        // Such a run has at most 2^32 pages.
        Some((place.after(skipped as u32), more))
    }

    /// How many pages from this one on the world has not; a page that it has makes 0.
    pub fn gap(&self, page: u64) -> u64 {
        let after = self
            .runs
            .partition_point(|(run, _)| run.page + run.count <= page);
        match self.runs.get(after) {
            Some((next, _)) => next.page.saturating_sub(page),
            None => u64::MAX,
        }
    }

    /// All runs, by rising address.
    pub fn runs(&self) -> &[(Extent, Place)] {
        &self.runs
    }
}
