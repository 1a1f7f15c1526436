//! Which pages the packs of a store have: a hint, kept on disk, that can be lost.
//!
//! A folder of [tables](table): `N.known`, N rising; each says for some packs
//! in which of them a page is. A lookup asks the newest first, so that worlds
//! follow each other into the packs that hold most of them. Adding a pack writes
//! a table; tables that have together grown as large as the next older one are
//! merged into one, so that there are O(log) of them. What a table says is
//! **not believed**: the caller compares the hash that the pack itself has (see
//! [`PackReader::hash`](super::pack::PackReader::hash)). So a damaged, torn or
//! outdated table costs space and never a wrong page, and nothing here is
//! synchronised to disk. Packs get in only when this host has hashed their pages.
//!
//! A table is made without a name and linked into the folder when it is whole;
//! a merged one takes the name of its newest part. Readers keep the tables that
//! they have opened. One merges at a time: who finds `lock` taken does not.

use std::fs::File;
use std::io::BufReader;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Dir, FlockOperation, Mode, OFlags, linkat, openat, unlinkat};
use rustix::io::Errno;

use super::page::PageHash;
use crate::digest::Digest;
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

mod entries;
mod table;

use entries::{Entry, Merge};
use table::{Table, TableWriter};

/// Where a table may be, for messages.
const HERE: &str = "the folder of known pages";

/// The known pages of a store, as they were when they were opened.
#[derive(Debug)]
pub struct Known {
    folder: OwnedFd,
    /// By rising number: the newest last.
    tables: Vec<Table>,
}

impl Known {
    /// Opens what is known in a folder. Tables that are damaged are removed.
    pub fn open(folder: OwnedFd) -> Result<Known> {
        let mut known = Known {
            folder,
            tables: Vec::new(),
        };
        known.refresh()?;
        Ok(known)
    }

    /// Takes in what has been added since.
    pub fn refresh(&mut self) -> Result<()> {
        let mut numbers = self.numbers()?;
        numbers.sort_unstable();
        // One that is gone by now was merged into a newer one, or that one's pages are unknown.
        let tables = numbers.into_iter().map(|number| self.open_table(number));
        let tables = tables.filter_map(Result::transpose);
        self.tables = tables.collect::<Result<_>>()?;
        Ok(())
    }

    /// Where a page may be, the best first: the pack and the page's number in it.
    pub fn find(&self, hash: &PageHash) -> Result<Vec<(Digest, u32)>> {
        let mut found = Vec::new();
        for table in self.tables.iter().rev() {
            found.extend(table.find(hash.prefix())?);
        }
        Ok(found)
    }

    /// Whether a pack's pages are known.
    pub fn has(&self, pack: &Digest) -> bool {
        let mut tables = self.tables.iter();
        tables.any(|table| table.packs().contains(pack))
    }

    /// How many tables a lookup asks at most.
    pub fn tables(&self) -> usize {
        self.tables.len()
    }

    /// Adds a pack whose pages have these hashes, computed on this host. Packs for which
    /// `exists` is false are forgotten when tables are merged.
    pub fn add(
        &mut self,
        pack: Digest,
        hashes: &[PageHash],
        exists: impl Fn(&Digest) -> bool,
    ) -> Result<()> {
        let pages = hashes.iter().zip(0..);
        let mut entries: Vec<Entry> = pages
            .map(|(hash, page)| Entry {
                prefix: hash.prefix(),
                pack: 0,
                page,
            })
            .collect();
        entries.sort_unstable();
        let mut writer = TableWriter::new(self.unnamed()?, vec![pack], entries.len() as u64)?;
        for entry in entries {
            writer.push(entry)?;
        }
        self.link_new(&writer.finish()?)?;
        self.refresh()?;
        self.merge(exists)
    }

    /// Forgets everything, for building it anew.
    pub fn clear(&mut self) -> Result<()> {
        for number in self.numbers()? {
            self.remove(number)?;
        }
        self.refresh()
    }

    fn merge(&mut self, exists: impl Fn(&Digest) -> bool) -> Result<()> {
        let first = first_to_merge(&self.tables);
        if self.tables.len() - first < 2 {
            return Ok(());
        }
        let Some(_lock) = self.lock()? else {
            return Ok(());
        };
        // Another may have merged them before the lock was taken.
        self.refresh()?;
        let parts = &self.tables[first_to_merge(&self.tables)..];
        let [.., newest] = parts else { return Ok(()) };
        if parts.len() < 2 {
            return Ok(());
        }
        let merged = self.merge_tables(parts, exists)?;
        self.remove(newest.number())?;
        self.link(&merged, newest.number())?;
        for part in &parts[..parts.len() - 1] {
            self.remove(part.number())?;
        }
        self.refresh()
    }

    /// Merges tables, given by rising number; of a page that several have, the newest counts.
    fn merge_tables(&self, parts: &[Table], exists: impl Fn(&Digest) -> bool) -> Result<File> {
        let mut packs: Vec<Digest> = parts.iter().flat_map(Table::packs).copied().collect();
        packs.sort_unstable();
        packs.dedup();
        packs.retain(exists);
        let most = parts.iter().map(Table::entries).sum();
        let sources = parts.iter().rev().map(|part| {
            let numbers = part.packs().iter();
            let numbers = numbers.map(|pack| packs.binary_search(pack).ok().map(|at| at as u32));
            part.read_all(numbers.collect())
        });
        let sources = sources.collect::<Result<Vec<_>>>()?;
        let mut writer = TableWriter::new(self.unnamed()?, packs.clone(), most)?;
        for entry in Merge::new(sources)? {
            writer.push(entry?)?;
        }
        writer.finish()
    }

    /// Whether this process may merge, as long as what is returned lives.
    fn lock(&self) -> Result<Option<File>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW;
        let lock = self.open_file("lock", flags)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(lock)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error).context(|| format!("lock {HERE}")),
        }
    }

    fn unnamed(&self) -> Result<File> {
        self.open_file(".", OFlags::RDWR | OFlags::TMPFILE)
    }

    fn open_file(&self, name: &str, flags: OFlags) -> Result<File> {
        let mode = Mode::RUSR | Mode::WUSR;
        let opened = openat(&self.folder, name, flags | OFlags::CLOEXEC, mode);
        let file = opened.context(|| format!("open {name} in {HERE}"))?;
        Ok(File::from(file))
    }

    /// Gives a table the next free number.
    fn link_new(&self, file: &File) -> Result<()> {
        loop {
            let newest = self.numbers()?.into_iter().max().unwrap_or(0);
            if self.link(file, newest + 1)? {
                return Ok(());
            }
        }
    }

    /// Gives an unnamed file a number. False where it is taken.
    fn link(&self, file: &File, number: u64) -> Result<bool> {
        let source = format!("/proc/self/fd/{}", file.as_raw_fd());
        let target = file_name(number);
        match linkat(CWD, source, &self.folder, target, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error).context(|| format!("add a table to {HERE}")),
        }
    }

    fn remove(&self, number: u64) -> Result<()> {
        match unlinkat(&self.folder, file_name(number), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error).context(|| format!("remove a table from {HERE}")),
        }
    }

    fn numbers(&self) -> Result<Vec<u64>> {
        let doing = || format!("list {HERE}");
        let mut numbers = Vec::new();
        for entry in Dir::read_from(self.folder.as_fd()).context(doing)? {
            let entry = entry.context(doing)?;
            let name = entry.file_name().to_str().ok();
            let number = name.and_then(|name| name.strip_suffix(".known"));
            numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        Ok(numbers)
    }

    /// `None` where it is not there, or is damaged and was therefore removed.
    fn open_table(&self, number: u64) -> Result<Option<Table>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = match self.open_file(&file_name(number), flags) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        match Table::open(file, number) {
            Ok(table) => Ok(Some(table)),
            Err(error) if error.kind() == ErrorKind::CorruptWorld => {
                tracing::warn!("{} is removed: {error}", file_name(number));
                self.remove(number)?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

fn file_name(number: u64) -> String {
    format!("{number}.known")
}

/// The oldest table to merge: from there on, those that follow are together at least as
/// large as each.
fn first_to_merge(tables: &[Table]) -> usize {
    let mut sum = 0;
    let mut first = tables.len();
    while let Some(before) = first.checked_sub(1) {
        let size = tables[before].entries();
        if first < tables.len() && size > sum {
            break;
        }
        sum += size;
        first = before;
    }
    first
}

fn damaged(how: &str) -> Error {
    let text = format!("the table of known pages {how}");
    Error::new(ErrorKind::CorruptWorld, text)
}

/// Reads ahead in a table, this much at once in bytes.
type Ahead = BufReader<File>;

#[cfg(test)]
mod tests;
