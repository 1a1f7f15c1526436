//! A pack: up to 32,768 pages in frames, each page to be had alone.
//!
//! All numbers are little endian, nothing stands between the parts:
//!
//! | part | what it is |
//! |---|---|
//! | 8 bytes | `wspack1\n` |
//! | frames | 16 pages each, the last 1 to 16; see [`frame`](super::frame) |
//! | u32 per frame | its stored length: 4096 times its pages if they stand as they are, less if compressed |
//! | 32 bytes per page | its BLAKE3 hash |
//! | u32 | how many pages, 1 to 32,768 |
//! | 8 bytes | `wspackE\n` |
//!
//! The lengths must add up to the file's size, so that every damage outside
//! the frames and hashes shows when the pack is opened; damage to those shows
//! when a page of the frame is read. The same pages in the same order are the
//! same bytes, for one version of zstd.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::frame::{Decoder, FRAME_PAGES, FRAME_SIZE};
use super::page::{PAGE_SIZE, PageHash};
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

/// Most pages in a pack: 128 MiB of memory, whose hashes are 1 MiB.
pub const PACK_PAGES: u32 = 32_768;

const HEAD: &[u8; 8] = b"wspack1\n";
const END: &[u8; 8] = b"wspackE\n";
const FOOTER: u64 = 4 + 8;

/// Writes one pack, frame by frame.
pub struct PackWriter<W: Write> {
    out: W,
    lengths: Vec<u32>,
    hashes: Vec<PageHash>,
}

impl<W: Write> PackWriter<W> {
    /// Begins a pack.
    pub fn new(mut out: W) -> Result<PackWriter<W>> {
        out.write_all(HEAD).context(|| "write a pack")?;
        Ok(PackWriter {
            out,
            lengths: Vec::new(),
            hashes: Vec::new(),
        })
    }

    /// Appends an encoded frame with its pages' hashes. Every frame but the last has
    /// [`FRAME_PAGES`] pages.
    pub fn push(&mut self, stored: &[u8], hashes: &[PageHash]) -> Result<()> {
        self.out.write_all(stored).context(|| "write a pack")?;
        self.lengths.push(stored.len() as u32);
        self.hashes.extend_from_slice(hashes);
        debug_assert!(self.lengths.len() == self.hashes.len().div_ceil(FRAME_PAGES));
        Ok(())
    }

    /// Pages so far.
    pub fn pages(&self) -> u32 {
        self.hashes.len() as u32
    }

    /// Ends the pack. Returns what it was written to, and the hashes of its pages.
    pub fn finish(mut self) -> Result<(W, Vec<PageHash>)> {
        let mut table = Vec::with_capacity(self.lengths.len() * 4 + self.hashes.len() * 32 + 12);
        for length in &self.lengths {
            table.extend(length.to_le_bytes());
        }
        for hash in &self.hashes {
            table.extend(hash.as_bytes());
        }
        table.extend(self.pages().to_le_bytes());
        table.extend(END);
        self.out.write_all(&table).context(|| "write a pack")?;
        Ok((self.out, self.hashes))
    }
}

/// Reads pages out of a pack, which may be anything: every bound is checked, and
/// every page against its hash. Can be shared by threads.
#[derive(Debug)]
pub struct PackReader {
    file: File,
    pages: u32,
    /// Where each frame begins, and where the last one ends.
    starts: Vec<u64>,
}

impl PackReader {
    /// Reads where the frames are. [`ErrorKind::CorruptWorld`] where it is no whole pack.
    pub fn open(file: File) -> Result<PackReader> {
        let size = file.metadata().context(|| "look at a pack")?.len();
        let pages = read_ends(&file, size)?;
        let frames = u64::from(pages).div_ceil(FRAME_PAGES as u64);
        let table = frames * 4 + u64::from(pages) * PageHash::SIZE as u64 + FOOTER;
        let end = size
            .checked_sub(table)
            .ok_or_else(|| damaged("is cut short"))?;
        let mut lengths = vec![0; frames as usize * 4];
        read_at(&file, &mut lengths, end)?;
        let starts = add_up(&lengths, pages)?;
        if starts.last() != Some(&end) {
            return Err(damaged("has frames that do not fill it"));
        }
        Ok(PackReader {
            file,
            pages,
            starts,
        })
    }

    /// How many pages it has; at least one.
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// How many frames it has.
    pub fn frames(&self) -> u32 {
        self.starts.len() as u32 - 1
    }

    /// The pages of a frame.
    pub fn pages_of(&self, frame: u32) -> Range<u32> {
        let first = frame.saturating_mul(FRAME_PAGES as u32).min(self.pages);
        first..(first + FRAME_PAGES as u32).min(self.pages)
    }

    /// The frame that a page is in.
    pub fn frame_of(page: u32) -> u32 {
        page / FRAME_PAGES as u32
    }

    /// Whether a frame's pages stand as they are, so that one can be read without the others.
    pub fn is_raw(&self, frame: u32) -> bool {
        let length = self.stored(frame).map(|at| at.end - at.start);
        length == Some(self.pages_of(frame).len() as u64 * PAGE_SIZE as u64)
    }

    /// The bytes of the file that a frame takes.
    fn stored(&self, frame: u32) -> Option<Range<u64>> {
        let frame = frame as usize;
        Some(*self.starts.get(frame)?..*self.starts.get(frame + 1)?)
    }

    /// The hash that the pack says a page has: true only of a pack whose pages were
    /// hashed on this host.
    pub fn hash(&self, page: u32) -> Result<PageHash> {
        let mut hash = [PageHash::from_bytes([0; 32])];
        self.read_hashes(page, &mut hash)?;
        Ok(hash[0])
    }

    /// The hashes that the pack says the pages of a frame have.
    pub fn hashes(&self, frame: u32) -> Result<Vec<PageHash>> {
        let range = self.pages_of(frame);
        let mut hashes = vec![PageHash::from_bytes([0; 32]); range.len()];
        self.read_hashes(range.start, &mut hashes)?;
        Ok(hashes)
    }

    /// Decodes a whole frame; `pages` becomes exactly its pages.
    pub fn read_frame(&self, frame: u32, decoder: &mut Decoder, pages: &mut Vec<u8>) -> Result<()> {
        self.decode(frame, decoder, pages)?;
        self.check(self.pages_of(frame).start, pages)
    }

    /// Reads one page into `out`; of a raw frame nothing else is read.
    pub fn read_page(
        &self,
        page: u32,
        decoder: &mut Decoder,
        out: &mut [u8; PAGE_SIZE],
    ) -> Result<()> {
        let frame = PackReader::frame_of(page);
        if self.is_raw(frame) {
            return self.read_raw(page, out);
        }
        let mut pages = Vec::new();
        self.decode(frame, decoder, &mut pages)?;
        let (pages, _) = pages.as_chunks();
        let found = pages.get(page as usize % FRAME_PAGES);
        *out = *found.ok_or_else(|| damaged("has no such page"))?;
        self.check(page, out)
    }

    /// Decodes a frame whose content may be wrong.
    fn decode(&self, frame: u32, decoder: &mut Decoder, pages: &mut Vec<u8>) -> Result<()> {
        let stored = self
            .stored(frame)
            .ok_or_else(|| damaged("has no such frame"))?;
        pages.resize(self.pages_of(frame).len() * PAGE_SIZE, 0);
        if self.is_raw(frame) {
            return read_at(&self.file, pages, stored.start);
        }
        let mut buffer = [0; FRAME_SIZE];
        let buffer = &mut buffer[..(stored.end - stored.start) as usize];
        read_at(&self.file, buffer, stored.start)?;
        decoder.decode(buffer, pages)
    }

    /// Reads some pages of one raw frame.
    pub fn read_raw(&self, first: u32, pages: &mut [u8]) -> Result<()> {
        let frame = PackReader::frame_of(first);
        let stored = self
            .stored(frame)
            .ok_or_else(|| damaged("has no such frame"))?;
        let at = stored.start + u64::from(first) % FRAME_PAGES as u64 * PAGE_SIZE as u64;
        if !self.is_raw(frame) || at + pages.len() as u64 > stored.end {
            return Err(damaged("has no such pages as they are"));
        }
        read_at(&self.file, pages, at)?;
        self.check(first, pages)
    }

    fn read_hashes(&self, first: u32, hashes: &mut [PageHash]) -> Result<()> {
        if u64::from(first) + hashes.len() as u64 > u64::from(self.pages) {
            return Err(damaged("has no such page"));
        }
        let mut bytes = [0; FRAME_PAGES * PageHash::SIZE];
        let bytes = &mut bytes[..hashes.len() * PageHash::SIZE];
        let table = self.starts[self.starts.len() - 1] + u64::from(self.frames()) * 4;
        read_at(
            &self.file,
            bytes,
            table + u64::from(first) * PageHash::SIZE as u64,
        )?;
        let (stored, _) = bytes.as_chunks();
        for (hash, stored) in hashes.iter_mut().zip(stored) {
            *hash = PageHash::from_bytes(*stored);
        }
        Ok(())
    }

    /// Compares pages of one frame, from `first` on, with the hashes stored for them.
    fn check(&self, first: u32, pages: &[u8]) -> Result<()> {
        let mut hashes = [PageHash::from_bytes([0; 32]); FRAME_PAGES];
        let hashes = &mut hashes[..pages.len() / PAGE_SIZE];
        self.read_hashes(first, hashes)?;
        for (number, (page, hash)) in pages.chunks(PAGE_SIZE).zip(hashes.iter()).enumerate() {
            if PageHash::of(page) != *hash {
                let number = first as usize + number;
                return Err(damaged(&format!(
                    "is damaged: page {number} is not what it was"
                )));
            }
        }
        Ok(())
    }
}

/// Checks head and end; returns the number of pages.
fn read_ends(file: &File, size: u64) -> Result<u32> {
    let mut head = [0; 8];
    let mut end = [0; FOOTER as usize];
    let at = size
        .checked_sub(FOOTER)
        .ok_or_else(|| damaged("is cut short"))?;
    read_at(file, &mut head, 0)?;
    read_at(file, &mut end, at)?;
    let (pages, end) = end.split_at(4);
    if head != *HEAD || end != END {
        return Err(damaged("does not begin and end as a pack does"));
    }
    let pages = pages.try_into().map_or(0, u32::from_le_bytes);
    match pages {
        1..=PACK_PAGES => Ok(pages),
        _ => Err(damaged("has no pages, or more than a pack may")),
    }
}

/// Where the frames of these stored lengths begin, and where the last one ends.
fn add_up(lengths: &[u8], pages: u32) -> Result<Vec<u64>> {
    let (lengths, _) = lengths.as_chunks();
    let mut starts = Vec::with_capacity(lengths.len() + 1);
    let mut at = HEAD.len() as u64;
    starts.push(at);
    for (frame, length) in lengths.iter().enumerate() {
        let length = u32::from_le_bytes(*length);
        let pages = (pages as usize - frame * FRAME_PAGES).min(FRAME_PAGES);
        if length == 0 || length as usize > pages * PAGE_SIZE {
            return Err(damaged("has a frame of an impossible length"));
        }
        at += u64::from(length);
        starts.push(at);
    }
    Ok(starts)
}

fn read_at(file: &File, bytes: &mut [u8], at: u64) -> Result<()> {
    file.read_exact_at(bytes, at)
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => damaged("is cut short"),
            _ => Error::caused_by(ErrorKind::Io, "read a pack", error),
        })
}

fn damaged(how: &str) -> Error {
    Error::new(ErrorKind::CorruptWorld, format!("the pack {how}"))
}

#[cfg(test)]
mod tests {
    use super::super::frame::Encoder;
    use super::*;
    use proptest::prelude::*;

    /// Pages whose content compresses in some frames and not in others.
    fn content(pages: usize, seed: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(pages * PAGE_SIZE);
        for number in 0..pages as u64 {
            let mut page = [0; PAGE_SIZE];
            let mut hasher = blake3::Hasher::new();
            hasher.update(&(seed + number).to_le_bytes());
            let random = (number / FRAME_PAGES as u64).is_multiple_of(2);
            let filled = if random { PAGE_SIZE } else { 100 };
            hasher.finalize_xof().fill(&mut page[..filled]);
            bytes.extend(page);
        }
        bytes
    }

    fn pack(content: &[u8]) -> Vec<u8> {
        let mut encoder = Encoder::new().unwrap();
        let mut writer = PackWriter::new(Vec::new()).unwrap();
        for frame in content.chunks(FRAME_SIZE) {
            let hashes: Vec<_> = frame.chunks(PAGE_SIZE).map(PageHash::of).collect();
            writer
                .push(&encoder.encode(frame).unwrap(), &hashes)
                .unwrap();
        }
        writer.finish().unwrap().0
    }

    fn open(bytes: &[u8]) -> Result<PackReader> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        PackReader::open(file)
    }

    /// Everything that can be had from a pack.
    fn read_all(bytes: &[u8]) -> Result<Vec<u8>> {
        let reader = open(bytes)?;
        let mut decoder = Decoder::new()?;
        let mut all = Vec::new();
        for frame in 0..reader.frames() {
            let mut pages = Vec::new();
            reader.read_frame(frame, &mut decoder, &mut pages)?;
            all.extend(pages);
        }
        Ok(all)
    }

    #[test]
    fn a_page_can_be_had_alone() {
        let content = content(50, 1);
        let reader = open(&pack(&content)).unwrap();
        assert_eq!((reader.pages(), reader.frames()), (50, 4));
        assert!(reader.is_raw(0) && !reader.is_raw(1));
        let mut decoder = Decoder::new().unwrap();
        for (number, expected) in content.chunks(PAGE_SIZE).enumerate() {
            let mut page = [0; PAGE_SIZE];
            reader
                .read_page(number as u32, &mut decoder, &mut page)
                .unwrap();
            assert_eq!(page, expected);
            assert_eq!(reader.hash(number as u32).unwrap(), PageHash::of(expected));
        }
        let mut page = [0; PAGE_SIZE];
        for beyond in [50, 63, 64, u32::MAX] {
            assert!(reader.read_page(beyond, &mut decoder, &mut page).is_err());
            assert!(reader.hash(beyond).is_err());
        }
        assert!(reader.read_raw(15, &mut [0; 2 * PAGE_SIZE]).is_err());
        assert!(reader.read_raw(16, &mut page).is_err());
    }

    #[test]
    fn the_same_pages_are_the_same_bytes() {
        assert_eq!(pack(&content(40, 7)), pack(&content(40, 7)));
    }

    #[test]
    fn every_cut_is_noticed() {
        let whole = pack(&content(17, 3));
        for length in 0..whole.len() {
            assert!(open(&whole[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn every_flipped_byte_is_an_error_or_changes_nothing() {
        let content = content(36, 5)[15 * PAGE_SIZE..].to_vec();
        let whole = pack(&content);
        for at in (0..whole.len()).filter(|at| at % 13 == 0 || whole.len() - at < 1000) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            if let Ok(read) = read_all(&flipped) {
                assert!(read == content, "byte {at}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn packs_come_back(pages in 1usize..60, seed: u64) {
            let content = content(pages, seed >> 1);
            prop_assert_eq!(read_all(&pack(&content)).unwrap(), content);
        }

        #[test]
        fn garbage_never_panics(mut bytes: Vec<u8>, pages: u32, framed: bool) {
            if framed {
                bytes.splice(0..0, *HEAD);
                bytes.extend(pages.to_le_bytes());
                bytes.extend(END);
            }
            let _ = read_all(&bytes);
        }
    }
}
