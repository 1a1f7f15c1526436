//! Memory: regions by address, and how many of their pages differ.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::listing::{Change, Listing};
use super::processes::pairs;
use super::regions::{self, Pair};
use crate::Result;
use crate::criu::dumped::{Backing, Process, Region};
use crate::criu::pagemap::Space;
use crate::memory::PAGE_SIZE;
use crate::memory::addresses::Addresses;
use crate::memory::difference::{Counts, Difference, Stretch};
use crate::memory::index::Index;
use crate::store::Store;
use crate::world::raw_text::RawText;

/// What differs in memory. Pages have 4096 bytes; those of zeros do not count, nor do those
/// that are as in their file. Memory that processes share counts once.
#[derive(Debug, Serialize)]
pub struct MemoryDiff {
    /// Pages of the first world.
    pub pages_before: u64,
    /// Pages of the second.
    pub pages_after: u64,
    /// Pages whose content is not the same.
    pub pages_differing: u64,
    /// By process and address.
    #[serde(flatten)]
    pub list: Listing<RegionChange>,
}

/// A region that differs.
#[derive(Debug, Serialize)]
pub struct RegionChange {
    /// The process.
    pub pid: u32,
    /// What happened to it.
    pub change: Change,
    /// In what it differs: `address`, `protection`, `name`, `sharing`, `pages`.
    pub what: Vec<&'static str>,
    /// In the first world.
    pub before: Option<RegionView>,
    /// In the second.
    pub after: Option<RegionView>,
    /// Its pages in the first world.
    pub pages_before: u64,
    /// In the second.
    pub pages_after: u64,
    /// Pages whose content is not the same.
    pub pages_differing: u64,
}

/// A region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RegionView {
    /// Its first address, hexadecimal.
    pub start: String,
    /// The address after its last, hexadecimal.
    pub end: String,
    /// As in `/proc/PID/maps`: `rw-p`.
    pub protection: String,
    /// The file's path, or a name in brackets; empty for plain memory.
    pub name: RawText,
}

impl RegionView {
    fn of(region: &Region) -> RegionView {
        let bit = |bit: u32, letter: char| match region.protection & bit {
            0 => '-',
            _ => letter,
        };
        let sharing = if region.shared { 's' } else { 'p' };
        RegionView {
            start: format!("{:#x}", region.start),
            end: format!("{:#x}", region.end),
            protection: [bit(1, 'r'), bit(2, 'w'), bit(4, 'x'), sharing]
                .iter()
                .collect(),
            name: RawText(region.name.to_vec()),
        }
    }
}

type World<'a> = (&'a [Process], &'a Index);

pub(super) fn compare(before: World<'_>, after: World<'_>, store: &Store) -> Result<MemoryDiff> {
    let mut comparison = Comparison {
        pages: Difference::new(before.1, after.1, store),
        shared: (Spaces::new(before.1), Spaces::new(after.1)),
        counted: HashSet::new(),
        diff: MemoryDiff {
            pages_before: 0,
            pages_after: 0,
            pages_differing: 0,
            list: Listing::default(),
        },
    };
    for (pid, (old, new)) in pairs(before.0, after.0) {
        let private = |index| Addresses::of(index, Space::Process(pid.into()));
        let spaces = (
            old.and_then(|_| private(before.1)),
            new.and_then(|_| private(after.1)),
        );
        let regions = (regions(old), regions(new));
        let spaces = (spaces.0.as_ref(), spaces.1.as_ref());
        for pair in regions::matched(regions.0, regions.1) {
            comparison.region(pid, &pair, spaces)?;
        }
    }
    Ok(comparison.diff)
}

fn regions(process: Option<&Process>) -> &[Region] {
    process.map_or(&[], |process| &process.regions)
}

struct Comparison<'a> {
    pages: Difference<'a>,
    shared: (Spaces<'a>, Spaces<'a>),
    /// Shared memory that is in the sums.
    counted: HashSet<[Option<(u64, u64, u64)>; 2]>,
    diff: MemoryDiff,
}

impl Comparison<'_> {
    fn region(
        &mut self,
        pid: u32,
        pair: &Pair<'_>,
        private: (Option<&Addresses>, Option<&Addresses>),
    ) -> Result<()> {
        let (old, new) = (pair.before, pair.after);
        let mut before = old.map(|region| self.shared.0.stretch(region, private.0));
        let mut after = new.map(|region| self.shared.1.stretch(region, private.1));
        if pair.moved {
            // Page by page from its beginning, wherever that is.
            for stretch in before.iter_mut().chain(&mut after) {
                stretch.end -= stretch.start;
                stretch.start = 0;
                stretch.around = false;
            }
        }
        // What came or went is compared with what else is there.
        let nothing = |other: Stretch, addresses| Stretch {
            end: other.start,
            addresses,
            ..other
        };
        let old_side = before.or(after.map(|after| nothing(after, private.0)));
        let new_side = after.or(before.map(|before| nothing(before, private.1)));
        let counts = self.pages.count(old_side, new_side)?;
        self.add_up(old, new, counts);
        let (before, after) = (old.map(RegionView::of), new.map(RegionView::of));
        if before == after && counts.differing == 0 {
            return Ok(());
        }
        let change = Change::of(before.as_ref(), after.as_ref());
        let what = match (&before, &after) {
            (Some(before), Some(after)) => differing(before, after, counts),
            _ => Vec::new(),
        };
        let views = [&before, &after].into_iter().flatten();
        let texts = views.map(|view| view.name.0.len() + 50).sum();
        let item = RegionChange {
            pid,
            change,
            what,
            before,
            after,
            pages_before: counts.before,
            pages_after: counts.after,
            pages_differing: counts.differing,
        };
        self.diff.list.push(change, item, texts);
        Ok(())
    }

    /// Adds to the sums what is not in them.
    fn add_up(&mut self, old: Option<&Region>, new: Option<&Region>, counts: Counts) {
        let shared = |region: Option<&Region>| match region?.backing {
            Backing::Shared { id, first } => Some((id, first, region?.end - region?.start)),
            _ => None,
        };
        let memory = [shared(old), shared(new)];
        if memory.iter().any(Option::is_some) && !self.counted.insert(memory) {
            return;
        }
        self.diff.pages_before += counts.before;
        self.diff.pages_after += counts.after;
        self.diff.pages_differing += counts.differing;
    }
}

fn differing(before: &RegionView, after: &RegionView, counts: Counts) -> Vec<&'static str> {
    let address = (&before.start, &before.end) != (&after.start, &after.end);
    let rwx = |view: &RegionView| view.protection.get(..3).map(str::to_owned);
    let sharing = |view: &RegionView| view.protection.get(3..).map(str::to_owned);
    let all = [
        ("address", address),
        ("protection", rwx(before) != rwx(after)),
        ("name", before.name != after.name),
        ("sharing", sharing(before) != sharing(after)),
        ("pages", counts.differing > 0),
    ];
    let differing = all.into_iter().filter(|(_, differs)| *differs);
    differing.map(|(name, _)| name).collect()
}

/// Memory that processes of a world share, by CRIU's ids.
struct Spaces<'a> {
    index: &'a Index,
    known: HashMap<u64, Option<Addresses>>,
}

impl<'a> Spaces<'a> {
    fn new(index: &'a Index) -> Spaces<'a> {
        Spaces {
            index,
            known: HashMap::new(),
        }
    }

    /// Where the pages of a region are; `private` has those of the process.
    fn stretch<'s>(&'s mut self, region: &Region, private: Option<&'s Addresses>) -> Stretch<'s> {
        let start = region.start / PAGE_SIZE as u64;
        let (addresses, first) = match region.backing {
            Backing::Private | Backing::PrivateFile => (private, start),
            Backing::Shared { id, first } => {
                let index = self.index;
                let space = || Addresses::of(index, Space::Shared(id));
                (self.known.entry(id).or_insert_with(space).as_ref(), first)
            }
            Backing::Elsewhere => (None, 0),
        };
        Stretch {
            start,
            end: region.end / PAGE_SIZE as u64,
            addresses,
            first,
            zeros: matches!(region.backing, Backing::Private | Backing::Shared { .. }),
            around: matches!(region.backing, Backing::Private | Backing::PrivateFile),
        }
    }
}
