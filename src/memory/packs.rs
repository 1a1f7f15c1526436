//! The packs that a packer has met: those of the store that have its pages, and its own.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::known::Known;
use super::pack::PackReader;
use super::page::PageHash;
use super::place::Place;
use super::sharing::Sharing;
use crate::digest::Digest;
use crate::store::Lease;
use crate::{ErrorKind, Result};

/// Most packs that are kept open at once.
const MOST_OPEN: usize = 64;

/// A pack by number.
#[derive(Debug, Clone, Copy)]
pub struct Met {
    /// Its digest; a pack that is still being written has none.
    pub digest: Option<Digest>,
    /// How many pages it has.
    pub pages: u32,
    /// In bytes.
    pub size: u64,
    /// Whether this packer wrote it.
    pub own: bool,
}

/// The packs met so far, numbered; shared by the threads of a packer.
pub struct Packs<'a> {
    lease: &'a Lease,
    sharing: &'a Sharing,
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    met: Vec<Met>,
    /// The number of a pack; `None` for one that cannot be used.
    numbers: HashMap<Digest, Option<u32>>,
    open: VecDeque<(u32, Arc<PackReader>)>,
    /// No other packs may be met.
    closed: bool,
}

impl<'a> Packs<'a> {
    /// None yet.
    pub fn new(lease: &'a Lease, sharing: &'a Sharing) -> Packs<'a> {
        Packs {
            lease,
            sharing,
            list: Mutex::default(),
        }
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a pack that will be written.
    pub fn begin(&self) -> u32 {
        let mut list = self.list();
        list.met.push(Met {
            digest: None,
            pages: 0,
            size: 0,
            own: true,
        });
        list.met.len() as u32 - 1
    }

    /// The pack that has been begun is written.
    pub fn finish(&self, number: u32, digest: Digest, pages: u32, size: u64) {
        let mut list = self.list();
        list.met[number as usize] = Met {
            digest: Some(digest),
            pages,
            size,
            own: true,
        };
        list.numbers.insert(digest, Some(number));
    }

    /// From now on pages are found in this packer's own packs only.
    pub fn only_own(&self) {
        let mut list = self.list();
        let own: Vec<bool> = list.met.iter().map(|pack| pack.own).collect();
        list.numbers
            .retain(|_, number| number.is_some_and(|number| own[number as usize]));
        list.closed = true;
    }

    /// All packs met, by number.
    pub fn all(&self) -> Vec<Met> {
        self.list().met.clone()
    }

    /// Where a page is in a pack of the store that may be used: held by the lease, and known
    /// by the pack itself to have it.
    pub fn find(&self, known: &Known, hash: &PageHash) -> Result<Option<Place>> {
        for (digest, page) in known.find(&self.sharing.wanted(hash))? {
            let Some((pack, reader)) = self.reader(&digest)? else {
                continue;
            };
            match reader.hash(page) {
                Ok(found) if found == *hash => return Ok(Some(Place::Pack { pack, page })),
                // Not the page after all, or a pack that is damaged by now.
                _ => {}
            }
        }
        Ok(None)
    }

    /// An open pack and its number; `None` if it cannot be used.
    fn reader(&self, digest: &Digest) -> Result<Option<(u32, Arc<PackReader>)>> {
        let number = {
            let list = self.list();
            match list.numbers.get(digest) {
                Some(None) => return Ok(None),
                Some(Some(number)) => {
                    if let Some(found) = list.open.iter().find(|(open, _)| open == number) {
                        return Ok(Some(found.clone()));
                    }
                    Some(*number)
                }
                None if list.closed => return Ok(None),
                None => None,
            }
        };
        let opened = self.open(digest)?;
        Ok(self.list().take_in(*digest, number, opened))
    }

    /// Opens a pack; `None` if it is gone or damaged.
    fn open(&self, digest: &Digest) -> Result<Option<(PackReader, u64)>> {
        if self.lease.hold(digest)?.is_none() {
            return Ok(None);
        }
        let blob = self.lease.store().open_blob(digest)?;
        match PackReader::open(blob.file) {
            Ok(reader) => Ok(Some((reader, blob.size))),
            Err(error) if error.kind() == ErrorKind::CorruptWorld => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl List {
    /// A pack was opened, or could not be. Another thread may have done the same by now.
    fn take_in(
        &mut self,
        digest: Digest,
        number: Option<u32>,
        opened: Option<(PackReader, u64)>,
    ) -> Option<(u32, Arc<PackReader>)> {
        let Some((reader, size)) = opened else {
            self.numbers.insert(digest, None);
            return None;
        };
        let number = match number.or_else(|| self.numbers.get(&digest).copied().flatten()) {
            Some(number) => number,
            None => {
                self.met.push(Met {
                    digest: Some(digest),
                    pages: reader.pages(),
                    size,
                    own: false,
                });
                self.met.len() as u32 - 1
            }
        };
        self.numbers.insert(digest, Some(number));
        if self.open.len() == MOST_OPEN {
            self.open.pop_front();
        }
        let reader = Arc::new(reader);
        self.open.push_back((number, reader.clone()));
        Some((number, reader))
    }
}
