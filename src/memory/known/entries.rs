//! The entries of tables of known pages, one after the other, and several tables as one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::Read;

use super::Ahead;
use crate::Result;
use crate::error::IoContext;

/// One known page. Ordered by prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// Of the page's hash.
    pub prefix: u64,
    /// Its number in the table's list of packs.
    pub pack: u32,
    /// The page's number in the pack.
    pub page: u32,
}

impl Entry {
    /// Bytes of an entry in a file: all numbers are little endian.
    pub const SIZE: usize = 16;

    pub fn to_bytes(self) -> [u8; Entry::SIZE] {
        let number =
            u128::from(self.prefix) | u128::from(self.pack) << 64 | u128::from(self.page) << 96;
        number.to_le_bytes()
    }

    pub fn from_bytes(bytes: [u8; Entry::SIZE]) -> Entry {
        let number = u128::from_le_bytes(bytes);
        Entry {
            prefix: number as u64,
            pack: (number >> 64) as u32,
            page: (number >> 96) as u32,
        }
    }
}

/// The entries of one table, its packs renumbered.
pub(super) struct Source {
    pub reader: Ahead,
    /// How many entries are left.
    pub left: u64,
    /// For every pack of the table its new number, unless it is gone.
    pub numbers: Vec<Option<u32>>,
}

impl Source {
    /// The next entry whose pack is not gone.
    fn next(&mut self) -> Result<Option<Entry>> {
        while self.left > 0 {
            self.left -= 1;
            let mut bytes = [0; Entry::SIZE];
            let read = self.reader.read_exact(&mut bytes);
            read.context(|| "read a table of known pages")?;
            let entry = Entry::from_bytes(bytes);
            if let Some(Some(pack)) = self.numbers.get(entry.pack as usize) {
                return Ok(Some(Entry {
                    pack: *pack,
                    ..entry
                }));
            }
        }
        Ok(None)
    }
}

/// The entries of several sorted sources in order. Of those with the same prefix the one
/// of the first source is left.
pub(super) struct Merge {
    sources: Vec<Source>,
    heads: BinaryHeap<Reverse<(u64, usize, Entry)>>,
    last: Option<u64>,
}

impl Merge {
    pub fn new(sources: Vec<Source>) -> Result<Merge> {
        let mut merge = Merge {
            sources,
            heads: BinaryHeap::new(),
            last: None,
        };
        for source in 0..merge.sources.len() {
            merge.advance(source)?;
        }
        Ok(merge)
    }

    fn advance(&mut self, source: usize) -> Result<()> {
        if let Some(entry) = self.sources[source].next()? {
            self.heads.push(Reverse((entry.prefix, source, entry)));
        }
        Ok(())
    }
}

impl Iterator for Merge {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        loop {
            let Reverse((prefix, source, entry)) = self.heads.pop()?;
            if let Err(error) = self.advance(source) {
                self.heads.clear();
                return Some(Err(error));
            }
            if self.last != Some(prefix) {
                self.last = Some(prefix);
                return Some(Ok(entry));
            }
        }
    }
}
