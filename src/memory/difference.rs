//! How many pages of two worlds of a store differ, without reading one: those
//! in the same place are the same, and of others the packs have hashes.
//!
//! Hashes are those that a pack says its pages have; that they are true is
//! [checked](super::check) by whoever verifies a world.

use std::sync::Arc;

use super::addresses::Addresses;
use super::index::Index;
use super::open_packs::OpenPacks;
use super::pack::PackReader;
use super::page::PageHash;
use super::place::Place;
use crate::Result;
use crate::store::Store;

/// A stretch of pages of a world, as a process has it at its addresses.
#[derive(Debug, Clone, Copy)]
pub struct Stretch<'a> {
    /// Number of the first page: its address divided by 4096.
    pub start: u64,
    /// The page after the last.
    pub end: u64,
    /// Where the pages are; nowhere, if the world does not have them.
    pub addresses: Option<&'a Addresses>,
    /// The number in `addresses` of the first page.
    pub first: u64,
    /// A page that is not there is one of zeros, and not a file's.
    pub zeros: bool,
    /// Pages of `addresses` before and after the stretch are the process's, too, in other
    /// stretches: of two regions that became one, no page differs.
    pub around: bool,
}

/// How many pages there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pages with content in the first world; those of zeros are none.
    pub before: u64,
    /// In the second.
    pub after: u64,
    /// Pages whose content is not the same in both.
    pub differing: u64,
}

/// Two worlds of a store.
pub struct Difference<'a> {
    before: World<'a>,
    after: World<'a>,
}

impl<'a> Difference<'a> {
    /// No pack is open yet.
    pub fn new(before: &'a Index, after: &'a Index, store: &'a Store) -> Difference<'a> {
        Difference {
            before: World::new(before, store),
            after: World::new(after, store),
        }
    }

    /// Compares stretches address by address. One may be missing.
    ///
    /// # Errors
    /// `CorruptWorld` if a pack is missing, damaged, or not as the index says.
    pub fn count(
        &mut self,
        before: Option<Stretch<'_>>,
        after: Option<Stretch<'_>>,
    ) -> Result<Counts> {
        let stretches = [before, after];
        let all = || stretches.iter().flatten();
        let mut page = all().map(|stretch| stretch.start).min().unwrap_or(0);
        let end = all().map(|stretch| stretch.end).max().unwrap_or(0);
        let mut counts = Counts::default();
        while page < end {
            let (old, more) = look(before, page);
            let (new, as_many) = look(after, page);
            let count = more.min(as_many).min(end - page);
            counts.before += if old.is_stored() { count } else { 0 };
            counts.after += if new.is_stored() { count } else { 0 };
            counts.differing += match (old, new) {
                (Page::Stored(old), Page::Stored(new)) | (Page::Around(old), Page::Stored(new)) => {
                    self.differing(old, new, count)?
                }
                // Counts where the other world's page is.
                (_, Page::Around(_)) => 0,
                (old, new) if old.is_like(new) => 0,
                _ => count,
            };
            page += count;
        }
        Ok(counts)
    }

    /// How many of `count` pages from these places on differ.
    fn differing(&mut self, old: (u32, u32), new: (u32, u32), count: u64) -> Result<u64> {
        let digest = |world: &World, pack: u32| {
            let pack = world.index.packs().get(pack as usize);
            pack.map(|pack| pack.digest)
        };
        let same_pack = digest(&self.before, old.0) == digest(&self.after, new.0);
        if same_pack && old.1 == new.1 {
            return Ok(0);
        }
        let mut differing = 0;
        // A place's run has fewer than 2^32 pages.
        for at in 0..count as u32 {
            let old = self.before.hash(old.0, old.1.saturating_add(at))?;
            let new = self.after.hash(new.0, new.1.saturating_add(at))?;
            differing += u64::from(old != new);
        }
        Ok(differing)
    }
}

/// What is at an address.
#[derive(Debug, Clone, Copy)]
enum Page {
    /// The process has no memory of this kind there.
    Outside,
    /// A page of a pack, in another stretch.
    Around((u32, u32)),
    /// What a file has there.
    File,
    Zero,
    /// A page of a pack.
    Stored((u32, u32)),
}

impl Page {
    fn is_stored(self) -> bool {
        matches!(self, Page::Stored(_))
    }

    /// Of two that are not both stored.
    fn is_like(self, other: Page) -> bool {
        match (self, other) {
            (Page::File, Page::Zero) | (Page::Zero, Page::File) => false,
            (one, other) => !one.is_stored() && !other.is_stored(),
        }
    }
}

/// What is at a page, and how many from there on are of the same kind and in places
/// one after the other.
fn look(stretch: Option<Stretch<'_>>, page: u64) -> (Page, u64) {
    let Some(stretch) = stretch else {
        return (Page::Outside, u64::MAX);
    };
    let left = match page {
        _ if page < stretch.start => stretch.start - page,
        _ if page >= stretch.end => u64::MAX,
        _ => stretch.end - page,
    };
    if !(stretch.start..stretch.end).contains(&page) {
        return look_around(stretch, page, left);
    }
    let skipped = page - stretch.start;
    let absent = match stretch.zeros {
        true => Page::Zero,
        false => Page::File,
    };
    let within = stretch.first.checked_add(skipped);
    let (Some(addresses), Some(within)) = (stretch.addresses, within) else {
        return (absent, left);
    };
    match addresses.find(within) {
        Some((Place::Zero, more)) => (Page::Zero, more.min(left)),
        Some((Place::Pack { pack, page }, more)) => (Page::Stored((pack, page)), more.min(left)),
        None => (absent, addresses.gap(within).clamp(1, left)),
    }
}

/// The same of a page outside of the stretch, `left` pages from where this changes.
fn look_around(stretch: Stretch<'_>, page: u64, left: u64) -> (Page, u64) {
    let Some(addresses) = stretch.addresses.filter(|_| stretch.around) else {
        return (Page::Outside, left);
    };
    match addresses.find(page) {
        Some((Place::Pack { pack, page }, more)) => (Page::Around((pack, page)), more.min(left)),
        Some((Place::Zero, more)) => (Page::Outside, more.min(left)),
        None => (Page::Outside, addresses.gap(page).clamp(1, left)),
    }
}

/// One of the worlds, and what was read of it last.
struct World<'a> {
    index: &'a Index,
    packs: OpenPacks<'a>,
    pack: Option<(u32, Arc<PackReader>)>,
    /// Of a pack's frame.
    hashes: Option<(u32, u32, Vec<PageHash>)>,
}

impl<'a> World<'a> {
    fn new(index: &'a Index, store: &'a Store) -> World<'a> {
        World {
            index,
            packs: OpenPacks::new(index, store),
            pack: None,
            hashes: None,
        }
    }

    fn hash(&mut self, pack: u32, page: u32) -> Result<Option<PageHash>> {
        let frame = PackReader::frame_of(page);
        let hashes = match self.hashes.take() {
            Some((of, number, hashes)) if (of, number) == (pack, frame) => hashes,
            _ => {
                let reader = self.open(pack)?;
                let read = reader.hashes(frame);
                read.map_err(|error| self.packs.blame(pack, error))?
            }
        };
        let first = frame * super::frame::FRAME_PAGES as u32;
        let hash = hashes.get((page - first) as usize).copied();
        self.hashes = Some((pack, frame, hashes));
        Ok(hash)
    }

    fn open(&mut self, pack: u32) -> Result<Arc<PackReader>> {
        match &self.pack {
            Some((number, reader)) if *number == pack => Ok(reader.clone()),
            _ => {
                let reader = self.packs.get(pack)?;
                self.pack = Some((pack, reader.clone()));
                Ok(reader)
            }
        }
    }
}
