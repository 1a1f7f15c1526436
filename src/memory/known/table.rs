//! A table of known pages on disk.
//!
//! All numbers are little endian:
//!
//! | part | what it is |
//! |---|---|
//! | 16 bytes per page | u64, the first eight bytes of its hash as a big-endian number; u32, which pack; u32, the page's number in it. Sorted |
//! | 32 bytes per pack | its digest |
//! | u32 per bucket | how many pages are in it and the buckets before |
//! | u32, u32, u64 | packs; buckets: two to the power of this; pages |
//! | 8 bytes | `wsknown1` |
//!
//! A page's bucket is the first bits of its hash. A bucket has 64 pages on the
//! average, so that a lookup reads about 1 KiB.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;

use super::entries::{Entry, Source};
use super::{Ahead, damaged};
use crate::Result;
use crate::digest::Digest;
use crate::error::IoContext;

const END: &[u8; 8] = b"wsknown1";
const FOOTER: u64 = 24;
/// Pages in a bucket, on the average.
const BUCKET: u64 = 64;
/// More pages in a bucket show damage: hashes do not gather so.
const FULL_BUCKET: u32 = 4096;
const MAX_BITS: u32 = 26;
/// Most pages of a table: 8 TiB of memory.
const MAX_ENTRIES: u64 = 1 << 31;
/// How much is read or written at once, in bytes.
const BUFFER: usize = 256 << 10;

fn bucket_of(prefix: u64, bits: u32) -> usize {
    prefix.checked_shr(64 - bits).unwrap_or(0) as usize
}

/// An open table.
#[derive(Debug)]
pub(super) struct Table {
    number: u64,
    file: File,
    entries: u64,
    packs: Vec<Digest>,
    bits: u32,
    /// Where each bucket ends.
    ends: Vec<u32>,
}

impl Table {
    /// Reads what is not read page by page. [`CorruptWorld`](crate::ErrorKind::CorruptWorld)
    /// where it is no whole table.
    pub fn open(file: File, number: u64) -> Result<Table> {
        let doing = || "read a table of known pages";
        let size = file.metadata().context(doing)?.len();
        let mut footer = [0; FOOTER as usize];
        let at = size
            .checked_sub(FOOTER)
            .ok_or_else(|| damaged("is cut short"))?;
        file.read_exact_at(&mut footer, at).context(doing)?;
        let (numbers, end) = footer.split_at(16);
        let (words, _) = numbers.as_chunks::<4>();
        let [packs, bits, low, high] = [0, 1, 2, 3].map(|at| u32::from_le_bytes(words[at]));
        let entries = u64::from(low) | u64::from(high) << 32;
        if end != END || bits > MAX_BITS || entries > MAX_ENTRIES {
            return Err(damaged("does not end as one does"));
        }
        let middle = u64::from(packs) * 32 + (4 << bits);
        if entries * Entry::SIZE as u64 + middle + FOOTER != size {
            return Err(damaged("is not of the size that it says"));
        }
        let mut bytes = vec![0; middle as usize];
        let at = entries * Entry::SIZE as u64;
        file.read_exact_at(&mut bytes, at).context(doing)?;
        let (packs, ends) = bytes.split_at(packs as usize * 32);
        let packs = packs
            .as_chunks()
            .0
            .iter()
            .map(|pack| Digest::from_bytes(*pack));
        let ends: Vec<u32> = ends
            .as_chunks()
            .0
            .iter()
            .map(|end| u32::from_le_bytes(*end))
            .collect();
        if !ends.is_sorted() || ends.last().is_none_or(|end| u64::from(*end) != entries) {
            return Err(damaged("has buckets that do not fit"));
        }
        Ok(Table {
            number,
            file,
            entries,
            packs: packs.collect(),
            bits,
            ends,
        })
    }

    /// Its file's number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How many pages it knows.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The packs that it knows pages of.
    pub fn packs(&self) -> &[Digest] {
        &self.packs
    }

    /// Where a page may be whose hash begins so.
    pub fn find(&self, prefix: u64) -> Result<Option<(Digest, u32)>> {
        let bucket = bucket_of(prefix, self.bits);
        let start = bucket.checked_sub(1).map_or(0, |before| self.ends[before]);
        let count = self.ends[bucket] - start;
        if count == 0 || count > FULL_BUCKET {
            return Ok(None);
        }
        let mut bytes = [0; FULL_BUCKET as usize * Entry::SIZE];
        let bytes = &mut bytes[..count as usize * Entry::SIZE];
        let at = u64::from(start) * Entry::SIZE as u64;
        let read = self.file.read_exact_at(bytes, at);
        read.context(|| "read a table of known pages")?;
        let (entries, _) = bytes.as_chunks();
        let Ok(found) = entries.binary_search_by_key(&prefix, |b| Entry::from_bytes(*b).prefix)
        else {
            return Ok(None);
        };
        let entry = Entry::from_bytes(entries[found]);
        let pack = self.packs.get(entry.pack as usize);
        Ok(pack.map(|pack| (*pack, entry.page)))
    }

    /// All its entries, with these numbers for its packs.
    pub fn read_all(&self, numbers: Vec<Option<u32>>) -> Result<Source> {
        // A descriptor of its own, for this table may be read by several threads.
        let path = format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&self.file)
        );
        let file = File::open(path).context(|| "open a table of known pages again")?;
        Ok(Source {
            reader: Ahead::with_capacity(BUFFER, file),
            left: self.entries,
            numbers,
        })
    }
}

/// Writes a table, entry by entry.
pub(super) struct TableWriter {
    out: BufWriter<File>,
    packs: Vec<Digest>,
    bits: u32,
    ends: Vec<u32>,
    entries: u32,
}

impl TableWriter {
    /// Begins a table of at most `most` entries.
    pub fn new(file: File, packs: Vec<Digest>, most: u64) -> Result<TableWriter> {
        if most > MAX_ENTRIES {
            return Err(damaged("would have too many pages"));
        }
        let bits = (most / BUCKET).checked_ilog2().unwrap_or(0).min(MAX_BITS);
        Ok(TableWriter {
            out: BufWriter::with_capacity(BUFFER, file),
            packs,
            bits,
            ends: vec![0; 1 << bits],
            entries: 0,
        })
    }

    /// Appends an entry; they come in order.
    pub fn push(&mut self, entry: Entry) -> Result<()> {
        self.entries += 1;
        self.ends[bucket_of(entry.prefix, self.bits)] = self.entries;
        let written = self.out.write_all(&entry.to_bytes());
        written.context(|| "write a table of known pages")
    }

    /// Ends the table.
    pub fn finish(mut self) -> Result<File> {
        let mut rest = Vec::new();
        for pack in &self.packs {
            rest.extend(pack.as_bytes());
        }
        let mut end = 0;
        for bucket in &self.ends {
            // An empty bucket ends where the one before does.
            end = end.max(*bucket);
            rest.extend(end.to_le_bytes());
        }
        rest.extend((self.packs.len() as u32).to_le_bytes());
        rest.extend(self.bits.to_le_bytes());
        rest.extend(u64::from(self.entries).to_le_bytes());
        rest.extend(END);
        let written = self.out.write_all(&rest);
        written.context(|| "write a table of known pages")?;
        let file = self
            .out
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error);
        file.context(|| "write a table of known pages")
    }
}
