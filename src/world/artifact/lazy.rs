//! Which pages of a world a page server serves, and which CRIU reads itself.
//!
//! A pagemap marks the pages that CRIU leaves to a server: those of private
//! anonymous memory that is neither locked nor of huge pages, without the page
//! that a thread's stack pointer is in. It reads the others when it restores.
//! Pages that no child is to see (`MADV_WIPEONFORK`) are served by nobody: to a
//! sibling they are zero.

use std::collections::BTreeMap;
use std::ops::Range;

use super::images;
use super::layout::Artifact;
use super::pack::small_images;
use super::unpack::{check_packs, load};
use crate::Result;
use crate::criu::dumped::{self, Images};
use crate::criu::pagemap::{Extent, Pagemap, Space};
use crate::digest::Digest;
use crate::memory::index::{Index, MAX_INDEX};
use crate::store::Lease;
use crate::world::manifest::Manifest;

/// Most bytes of the images that say what is lazy.
const MOST_IMAGES: u64 = 512 << 20;

/// The memory of a world for a page server.
pub struct LazyMemory {
    /// Where its pages are.
    pub index: Index,
    /// Per process id in the images: the pages for the server, runs of page numbers and
    /// counts, rising.
    pub lazy: BTreeMap<u32, Vec<(u64, u64)>>,
    images: Images,
}

/// Reads what a page server must know of a world, which `lease` must hold.
pub fn lazy_memory(lease: &Lease, digest: &Digest) -> Result<LazyMemory> {
    let (artifact, manifest) = load(lease.store(), digest)?;
    of(lease, &artifact, &manifest).map_err(|error| error.within(format!("world {digest}")))
}

pub(super) fn of(lease: &Lease, artifact: &Artifact, manifest: &Manifest) -> Result<LazyMemory> {
    let store = lease.store();
    let index = Index::parse(store.read(&artifact.pages.digest, MAX_INDEX)?)?;
    check_packs(artifact, &index)?;
    let blob = store.open_blob(&artifact.images.digest)?;
    let wanted = |name: &str| Space::of_file(name).is_some() || name.starts_with("mm-");
    let files = small_images(manifest)?;
    let images = images::collect(blob.file, &files, wanted, MOST_IMAGES)?;
    let mut memory = LazyMemory {
        index,
        lazy: BTreeMap::new(),
        images: Images(images),
    };
    for space in memory.spaces() {
        let Space::Process(id) = space else {
            continue;
        };
        let Ok(pid) = u32::try_from(id) else {
            continue;
        };
        let runs = memory.runs(space)?.into_iter();
        let lazy = runs.filter(|(_, lazy)| *lazy);
        let lazy = lazy.map(|(run, _)| (run.page, run.count)).collect();
        memory.lazy.insert(pid, lazy);
    }
    Ok(memory)
}

impl LazyMemory {
    fn spaces(&self) -> Vec<Space> {
        let files = self.index.files().iter();
        files.flat_map(|file| file.spaces()).collect()
    }

    /// The runs of a space, without pages that are wiped, each with whether it is lazy.
    fn runs(&self, space: Space) -> Result<Vec<(Extent, bool)>> {
        let located = self.located(space)?.into_iter();
        Ok(located.map(|(run, lazy, _)| (run, lazy)).collect())
    }

    /// As [`LazyMemory::runs`], each with its first page in the pages file.
    fn located(&self, space: Space) -> Result<Vec<(Extent, bool, u64)>> {
        let none = Vec::new();
        let image = self.images.0.get(&space.to_string()).unwrap_or(&none);
        let wiped = match space {
            Space::Process(id) => {
                dumped::wiped_on_fork(&self.images, u32::try_from(id).unwrap_or(0))?
            }
            Space::Shared(_) => Vec::new(),
        };
        let mut located = Vec::new();
        let mut at = 0;
        for run in Pagemap::parse(image)
            .map_err(|error| error.within(space))?
            .runs()
        {
            let (run, lazy) = run.map_err(|error| error.within(space))?;
            for kept in without(run, &wiped) {
                located.push((kept, lazy, at + (kept.page - run.page)));
            }
            at += run.count;
        }
        Ok(located)
    }

    /// Per pages file: the pages that CRIU must find in it, by their number there.
    pub(super) fn eager_parts(&self, lazily: bool) -> Result<BTreeMap<u32, Vec<Range<u64>>>> {
        let mut parts = BTreeMap::new();
        for file in self.index.files() {
            let mut eager: Vec<Range<u64>> = Vec::new();
            for space in file.spaces() {
                for (run, lazy, at) in self.located(space)? {
                    if !(lazy && lazily) {
                        eager.push(at..at + run.count);
                    }
                }
            }
            parts.insert(file.id, united(eager));
        }
        Ok(parts)
    }
}

/// A run without what is in one of the ranges, which rise.
fn without(run: Extent, ranges: &[Range<u64>]) -> Vec<Extent> {
    let end = run.page + run.count;
    let mut kept = Vec::new();
    let mut page = run.page;
    let mut keep = |page: u64, end: u64| {
        if let Some(count) = end.checked_sub(page).filter(|count| *count > 0) {
            kept.push(Extent { page, count });
        }
    };
    for range in ranges
        .iter()
        .filter(|it| it.end > run.page && it.start < end)
    {
        keep(page, range.start);
        page = page.max(range.end);
    }
    keep(page, end);
    kept
}

/// Sorted, and those that touch or overlap as one.
fn united(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut united: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match united.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => united.push(range),
        }
    }
    united
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wiped_pages_are_left_out() {
        let run = Extent {
            page: 10,
            count: 10,
        };
        let kept = |ranges: &[Range<u64>]| -> Vec<_> {
            let kept = without(run, ranges).into_iter();
            kept.map(|it| (it.page, it.count)).collect()
        };
        assert_eq!(kept(&[]), [(10, 10)]);
        assert_eq!(kept(&[0..10, 20..30]), [(10, 10)]);
        assert_eq!(kept(&[0..12, 14..15, 19..40]), [(12, 2), (15, 4)]);
        assert!(kept(&[0..1, 5..25]).is_empty());
    }

    #[test]
    fn ranges_are_united() {
        assert_eq!(united(vec![5..7, 0..2, 2..3, 6..9]), [0..3, 5..9]);
    }
}
