//! Brings the pages files back: an index and packs in, `pages-N.img` out.
//!
//! The files are written by all cores, segment by segment; zeros stay holes. Every
//! page is compared with the hash that its pack has for it.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{Mode, OFlags, openat};

use super::frame::{Decoder, FRAME_PAGES, FRAME_SIZE};
use super::index::{Index, PagesFile};
use super::open_packs::OpenPacks;
use super::pack::PackReader;
use super::page::PAGE_SIZE;
use super::place::{Place, Run};
use crate::Result;
use crate::criu::pagemap::pages_file;
use crate::digest::on_all_cores;
use crate::error::IoContext;
use crate::store::Lease;

/// Pages of a segment: those that one core writes at a time.
const SEGMENT: u32 = 1024;
/// Segments that are worked on before the next are listed.
const SEGMENTS: usize = 256;
/// Runs that one core writes at a time where only some are wanted.
const PARTS: usize = 64;
/// Decoded frames that a segment keeps, in case it needs them again.
const KEPT: usize = 16;

/// Makes the pages files of `index` in the folder `out`, where they must not be yet. The
/// packs are those of the store; whoever holds `lease` holds them with it.
/// `progress` is told how many pages are there since it was told last. What was written
/// before an error stays: the folder's owner removes it.
pub fn unpack(
    index: &Index,
    lease: &Lease,
    out: BorrowedFd,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let packs = OpenPacks::new(index, lease.store());
    for file in index.files() {
        let name = pages_file(file.id);
        let unpacked = unpack_file(index, file, &packs, &create(out, &name)?, progress);
        unpacked.map_err(|error| error.within(name))?;
    }
    Ok(())
}

/// As [`unpack`], but only the pages in `wanted` are filled: per file id, page numbers in the
/// file, rising. All others stay holes.
pub fn unpack_some(
    index: &Index,
    lease: &Lease,
    out: BorrowedFd,
    wanted: &BTreeMap<u32, Vec<Range<u64>>>,
) -> Result<()> {
    let packs = OpenPacks::new(index, lease.store());
    let none = Vec::new();
    for file in index.files() {
        let name = pages_file(file.id);
        let wanted = wanted.get(&file.id).unwrap_or(&none);
        let unpack = |out: File| {
            let size = file.pages * PAGE_SIZE as u64;
            rustix::fs::ftruncate(out.as_fd(), size).context(|| "make room for the pages")?;
            let parts = parts_within(index.runs(file), wanted);
            let work: Vec<_> = parts.chunks(PARTS).collect();
            on_all_cores(&work, |parts| {
                let mut writer = SegmentWriter::new(&packs, &out)?;
                parts.iter().try_for_each(|part| writer.write(part))
            })
        };
        create(out, &name)
            .and_then(unpack)
            .map_err(|error| error.within(name))?;
    }
    Ok(())
}

/// The stored pages of `runs` that are in one of the ranges.
fn parts_within(runs: impl Iterator<Item = Run>, ranges: &[Range<u64>]) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut start = 0;
    for run in runs {
        let end = start + u64::from(run.count);
        let first = ranges.partition_point(|range| range.end <= start);
        for range in ranges[first..].iter().take_while(|range| range.start < end) {
            let (from, to) = (range.start.max(start), range.end.min(end));
            // Both are within the run, whose pages are fewer than 2^32.
            let place = run.place.after((from - start) as u32);
            if let Place::Pack { pack, page } = place {
                parts.push(Part {
                    at: from,
                    pack,
                    page,
                    count: (to - from) as u32,
                });
            }
        }
        start = end;
    }
    parts
}

fn create(out: BorrowedFd, name: &str) -> Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(out, name, flags, Mode::RUSR | Mode::WUSR);
    Ok(File::from(file.context(|| format!("create {name}"))?))
}

/// A run of stored pages, and where it goes.
struct Part {
    /// The first page in the pages file.
    at: u64,
    pack: u32,
    /// The first page in the pack.
    page: u32,
    count: u32,
}

fn unpack_file(
    index: &Index,
    file: &PagesFile,
    packs: &OpenPacks,
    out: &File,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let size = file.pages * PAGE_SIZE as u64;
    rustix::fs::ftruncate(out.as_fd(), size).context(|| "make room for the pages")?;
    let mut runs = index.runs(file);
    let mut segments = Segments::default();
    loop {
        let work = segments.next(&mut runs);
        if work.is_empty() {
            return Ok(());
        }
        on_all_cores(&work, |segment| {
            let mut writer = SegmentWriter::new(packs, out)?;
            segment
                .parts
                .iter()
                .try_for_each(|part| writer.write(part))?;
            progress(segment.pages);
            Ok(())
        })?;
    }
}

/// Work for one core.
#[derive(Default)]
struct Segment {
    parts: Vec<Part>,
    /// Zeros included.
    pages: u64,
}

/// Cuts runs into segments.
#[derive(Default)]
struct Segments {
    at: u64,
    rest: Option<Run>,
}

impl Segments {
    /// The next segments; none at the end.
    fn next(&mut self, runs: &mut impl Iterator<Item = Run>) -> Vec<Segment> {
        let mut segments = Vec::new();
        let mut segment = Segment::default();
        let mut stored = 0;
        while segments.len() < SEGMENTS
            && let Some(run) = self.rest.take().or_else(|| runs.next())
        {
            let taken = match run.place {
                Place::Zero => run,
                Place::Pack { .. } => run.at_most(SEGMENT - stored),
            };
            if taken.count < run.count {
                self.rest = Some(run.skip(taken.count));
            }
            if let Place::Pack { pack, page } = taken.place {
                segment.parts.push(Part {
                    at: self.at,
                    pack,
                    page,
                    count: taken.count,
                });
                stored += taken.count;
            }
            segment.pages += u64::from(taken.count);
            self.at += u64::from(taken.count);
            if stored == SEGMENT {
                segments.push(std::mem::take(&mut segment));
                stored = 0;
            }
        }
        if segment.pages > 0 {
            segments.push(segment);
        }
        segments
    }
}

/// Writes the pages of a segment.
struct SegmentWriter<'a> {
    packs: &'a OpenPacks<'a>,
    out: &'a File,
    decoder: Decoder,
    /// Pages of a raw frame.
    raw: Vec<u8>,
    /// Decoded frames, by pack and number; the newest last.
    kept: VecDeque<(u32, u32, Vec<u8>)>,
}

impl<'a> SegmentWriter<'a> {
    fn new(packs: &'a OpenPacks<'a>, out: &'a File) -> Result<SegmentWriter<'a>> {
        Ok(SegmentWriter {
            packs,
            out,
            decoder: Decoder::new()?,
            raw: vec![0; FRAME_SIZE],
            kept: VecDeque::new(),
        })
    }

    fn write(&mut self, part: &Part) -> Result<()> {
        let pack = self.packs.get(part.pack)?;
        let mut done = 0;
        while done < part.count {
            let page = part.page + done;
            let frame = PackReader::frame_of(page);
            let slot = page as usize % FRAME_PAGES;
            let count = (FRAME_PAGES - slot).min((part.count - done) as usize);
            let bytes = slot * PAGE_SIZE..(slot + count) * PAGE_SIZE;
            let at = (part.at + u64::from(done)) * PAGE_SIZE as u64;
            let (packs, out) = (self.packs, self.out);
            let blame = |error| packs.blame(part.pack, error);
            let pages = if pack.is_raw(frame) {
                let pages = &mut self.raw[..bytes.len()];
                pack.read_raw(page, pages).map_err(blame)?;
                pages
            } else {
                let kept = self.frame(&pack, part.pack, frame).map_err(blame)?;
                &kept[bytes]
            };
            out.write_all_at(pages, at).context(|| "write pages")?;
            done += count as u32;
        }
        Ok(())
    }

    /// A frame that is compressed.
    fn frame(&mut self, reader: &PackReader, pack: u32, frame: u32) -> Result<&[u8]> {
        let at = self
            .kept
            .iter()
            .position(|kept| (kept.0, kept.1) == (pack, frame));
        let at = match at {
            Some(at) => at,
            None => {
                let oldest = (self.kept.len() == KEPT).then(|| self.kept.pop_front());
                let mut pages = oldest
                    .flatten()
                    .map_or_else(Vec::new, |(_, _, pages)| pages);
                reader.read_frame(frame, &mut self.decoder, &mut pages)?;
                self.kept.push_back((pack, frame, pages));
                self.kept.len() - 1
            }
        };
        Ok(&self.kept[at].2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_wanted_pages_are_taken() {
        let stored = |page, count| Run {
            place: Place::Pack { pack: 0, page },
            count,
        };
        let zeros = Run {
            place: Place::Zero,
            count: 10,
        };
        let runs = [stored(100, 10), zeros, stored(300, 10)];
        let parts = parts_within(runs.into_iter(), &[0..2, 8..12, 18..22, 29..30]);
        let found: Vec<_> = parts.iter().map(|it| (it.at, it.page, it.count)).collect();
        assert_eq!(
            found,
            [(0, 100, 2), (8, 108, 2), (20, 300, 2), (29, 309, 1)]
        );
    }
}
