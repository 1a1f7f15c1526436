//! The pages index: where every page of a world's memory is.
//!
//! Numbers are varints (see [`varint`](super::varint)) unless said otherwise:
//!
//! | part | what it is |
//! |---|---|
//! | 8 bytes | `wspages1` |
//! | number | how many packs; for each: 32 bytes, its SHA-256 digest; number, its pages. Ordered by first use |
//! | number | how many pages files; for each a section, their ids rising |
//! | 32 bytes | BLAKE3 of everything before |
//!
//! The section of `pages-ID.img`:
//!
//! | part | what it is |
//! |---|---|
//! | number, number | ID; how many pages it has |
//! | number | how many pagemaps refer to it; for each: number, 0 for `pagemap-N.img`, 1 for `pagemap-shmem-N.img`; number, N; number, how many runs of addresses; for each: number, pages between the end of the run before (or 0) and its address; number, its pages |
//! | runs of pages | until all pages are named: number, twice the count, plus 1 if stored; if stored: number, the pack; number, the first page in it |
//!
//! A run of zeros is not stored. Every pagemap has as many pages as the file.
//! The index is read from a slice, checked whole before anything of it is used,
//! and never copied out: what it says is decoded where it is needed.

use std::collections::HashSet;
use std::ops::Range;

use super::pack::PACK_PAGES;
use super::place::{Place, Run};
use super::varint;
use crate::criu::pagemap::{Extent, Space};
use crate::digest::Digest;
use crate::{Error, ErrorKind, Result};

pub(super) const HEAD: &[u8; 8] = b"wspages1";
const SUM: usize = 32;

/// A larger index than this, in bytes, is not read: it says where more than 40
/// million scattered pages are.
pub const MAX_INDEX: usize = 256 << 20;
/// A world has fewer files and address spaces than this.
const MAX_SPACES: u64 = 1 << 20;
/// No world has more pages: these are 64 TiB.
pub const MAX_PAGES: u64 = 1 << 34;

/// A pack that an index refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackRef {
    /// Its digest.
    pub digest: Digest,
    /// How many pages it has, used or not.
    pub pages: u32,
}

/// A pages file that an index describes.
#[derive(Debug, Clone)]
pub struct PagesFile {
    /// Its id: it is `pages-ID.img`.
    pub id: u32,
    /// Its size in pages.
    pub pages: u64,
    /// The address spaces whose pages it has, each with where its runs of addresses stand.
    spaces: Vec<(Space, Range<usize>)>,
    runs: Range<usize>,
}

impl PagesFile {
    /// The address spaces whose pages it has.
    pub fn spaces(&self) -> impl Iterator<Item = Space> {
        self.spaces.iter().map(|(space, _)| *space)
    }
}

/// An index that was checked whole.
#[derive(Debug)]
pub struct Index {
    bytes: Vec<u8>,
    packs: Vec<PackRef>,
    files: Vec<PagesFile>,
}

impl Index {
    /// Checks and takes an index. [`ErrorKind::CorruptWorld`] where anything is wrong.
    pub fn parse(bytes: Vec<u8>) -> Result<Index> {
        if bytes.len() > MAX_INDEX {
            return Err(damaged("is too large"));
        }
        let end = bytes.len().checked_sub(SUM).ok_or_else(cut_short)?;
        let (body, sum) = bytes.split_at(end);
        if blake3::hash(body).as_bytes() != sum {
            return Err(damaged("does not match its own checksum"));
        }
        let mut reader = Reader { body, at: 0 };
        if reader.take_bytes(HEAD.len())? != HEAD {
            return Err(damaged("does not begin as one does"));
        }
        let packs = read_packs(&mut reader)?;
        let files = read_files(&mut reader, &packs)?;
        if reader.at != end {
            return Err(damaged("does not end where it should"));
        }
        Ok(Index {
            bytes,
            packs,
            files,
        })
    }

    /// The packs it refers to; a run's `pack` is a number in this list.
    pub fn packs(&self) -> &[PackRef] {
        &self.packs
    }

    /// The pages files it describes, by rising id.
    pub fn files(&self) -> &[PagesFile] {
        &self.files
    }

    /// Where the pages of a file of this index are, in order.
    pub fn runs(&self, file: &PagesFile) -> impl Iterator<Item = Run> {
        let mut reader = self.reader(&file.runs);
        std::iter::from_fn(move || reader.take_run().ok())
    }

    /// The runs of addresses of an address space of a file of this index, rising.
    fn extents(&self, at: &Range<usize>) -> impl Iterator<Item = Extent> {
        let mut reader = self.reader(at);
        let mut end = 0;
        std::iter::from_fn(move || reader.take_extent(&mut end).ok())
    }

    /// Where the pages of an address space are: for every run of addresses whose pages
    /// lie one after the other, in rising order. `None` where there is no such space.
    pub fn addresses(&self, space: Space) -> Option<impl Iterator<Item = (Extent, Place)>> {
        let (file, at) = self.files.iter().find_map(|file| {
            let found = file.spaces.iter().find(|(named, _)| *named == space);
            found.map(|(_, at)| (file, at))
        })?;
        let mut runs = self.runs(file);
        let mut run: Option<Run> = None;
        let mut extents = self.extents(at);
        let mut extent: Option<Extent> = None;
        Some(std::iter::from_fn(move || {
            let here = extent.take().or_else(|| extents.next())?;
            let there = run.take().or_else(|| runs.next())?;
            // At most `there.count`, so it fits 32 bits.
            let count = here.count.min(there.count.into()) as u32;
            if here.count > count.into() {
                extent = Some(Extent {
                    page: here.page + u64::from(count),
                    count: here.count - u64::from(count),
                });
            }
            if there.count > count {
                run = Some(there.skip(count));
            }
            let count = count.into();
            Some((Extent { count, ..here }, there.place))
        }))
    }

    fn reader(&self, range: &Range<usize>) -> Reader<'_> {
        Reader {
            body: &self.bytes[..range.end],
            at: range.start,
        }
    }
}

fn read_packs(reader: &mut Reader) -> Result<Vec<PackRef>> {
    let mut packs = Vec::new();
    let mut known = HashSet::new();
    for _ in 0..reader.take()? {
        let digest = reader.take_bytes(32)?.try_into().map_err(|_| cut_short())?;
        let digest = Digest::from_bytes(digest);
        let pages = u32::try_from(reader.take()?).unwrap_or(u32::MAX);
        if pages == 0 || pages > PACK_PAGES || !known.insert(digest) {
            return Err(damaged("lists its packs wrongly"));
        }
        packs.push(PackRef { digest, pages });
    }
    Ok(packs)
}

fn read_files(reader: &mut Reader, packs: &[PackRef]) -> Result<Vec<PagesFile>> {
    let mut files: Vec<PagesFile> = Vec::new();
    let mut known = HashSet::new();
    let mut total = 0;
    for _ in 0..reader.take_count()? {
        let id = u32::try_from(reader.take()?).map_err(|_| damaged("has a wrong file id"))?;
        if files.last().is_some_and(|before| before.id >= id) {
            return Err(damaged("does not list its files in order"));
        }
        let pages = reader.take()?;
        total = pages.saturating_add(total);
        if total > MAX_PAGES {
            return Err(damaged("has too many pages"));
        }
        let spaces = read_spaces(reader, pages, &mut known)?;
        let start = reader.at;
        check_runs(reader, pages, packs)?;
        let runs = start..reader.at;
        files.push(PagesFile {
            id,
            pages,
            spaces,
            runs,
        });
    }
    Ok(files)
}

fn read_spaces(
    reader: &mut Reader,
    pages: u64,
    known: &mut HashSet<Space>,
) -> Result<Vec<(Space, Range<usize>)>> {
    let mut spaces = Vec::new();
    for _ in 0..reader.take_count()? {
        let space = match (reader.take()?, reader.take()?) {
            (0, id) => Space::Process(id),
            (1, id) => Space::Shared(id),
            _ => return Err(damaged("has an address space of an unknown kind")),
        };
        if !known.insert(space) {
            return Err(damaged("has an address space twice"));
        }
        if known.len() as u64 > MAX_SPACES {
            return Err(damaged("has too many address spaces"));
        }
        let extents = reader.take()?;
        let start = reader.at;
        let (mut end, mut sum) = (0, 0);
        for _ in 0..extents {
            // Rising below the highest address, so the sum fits.
            sum += reader.take_extent(&mut end)?.count;
        }
        if sum != pages {
            return Err(damaged("has an address space that does not fit its pages"));
        }
        spaces.push((space, start..reader.at));
    }
    Ok(spaces)
}

fn check_runs(reader: &mut Reader, pages: u64, packs: &[PackRef]) -> Result<()> {
    let mut left = pages;
    while left > 0 {
        let run = reader.take_run()?;
        left = left
            .checked_sub(run.count.into())
            .ok_or_else(|| damaged("has more pages than it says"))?;
        if let Place::Pack { pack, page } = run.place {
            let inside = packs
                .get(pack as usize)
                .is_some_and(|pack| u64::from(page) + u64::from(run.count) <= pack.pages.into());
            if !inside {
                return Err(damaged("refers to a page that no pack has"));
            }
        }
    }
    Ok(())
}

/// Reads forward; never beyond the end.
struct Reader<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a [u8] {
        self.body.get(self.at..).unwrap_or(&[])
    }

    fn take_bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let bytes = self.rest().get(..count).ok_or_else(cut_short)?;
        self.at += count;
        Ok(bytes)
    }

    fn take(&mut self) -> Result<u64> {
        let mut rest = self.rest();
        let number = varint::take(&mut rest).ok_or_else(cut_short)?;
        self.at = self.body.len() - rest.len();
        Ok(number)
    }

    fn take_count(&mut self) -> Result<u64> {
        match self.take()? {
            count if count <= MAX_SPACES => Ok(count),
            _ => Err(damaged("has too many files or address spaces")),
        }
    }

    fn take_extent(&mut self, end: &mut u64) -> Result<Extent> {
        let (gap, count) = (self.take()?, self.take()?);
        let page = end.checked_add(gap);
        let next = page.and_then(|page| page.checked_add(count));
        match (page, next) {
            (Some(page), Some(next)) if count > 0 && next <= u64::MAX >> 12 => {
                *end = next;
                Ok(Extent { page, count })
            }
            _ => Err(damaged("has an impossible run of addresses")),
        }
    }

    fn take_run(&mut self) -> Result<Run> {
        let number = self.take()?;
        let count = u32::try_from(number >> 1).map_err(|_| damaged("has a run too long"))?;
        if count == 0 {
            return Err(damaged("has an empty run"));
        }
        let place = match number & 1 {
            0 => Place::Zero,
            _ => {
                let (pack, page) = (self.take()?, self.take()?);
                let wrong = |_| damaged("refers to a page that no pack has");
                Place::Pack {
                    pack: pack.try_into().map_err(wrong)?,
                    page: page.try_into().map_err(wrong)?,
                }
            }
        };
        Ok(Run { place, count })
    }
}

fn cut_short() -> Error {
    damaged("is cut short")
}

fn damaged(how: &str) -> Error {
    Error::new(ErrorKind::CorruptWorld, format!("the pages index {how}"))
}
