//! The packs of an index, opened when they are needed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::index::Index;
use super::pack::PackReader;
use crate::store::Store;
use crate::{Error, ErrorKind, Result};

/// Most packs that are kept open at once.
const MOST_OPEN: usize = 128;

/// The packs of an index, by their number in it. Can be shared by threads.
pub struct OpenPacks<'a> {
    index: &'a Index,
    store: &'a Store,
    open: Mutex<VecDeque<(u32, Arc<PackReader>)>>,
}

impl<'a> OpenPacks<'a> {
    /// None is open yet.
    pub fn new(index: &'a Index, store: &'a Store) -> OpenPacks<'a> {
        OpenPacks {
            index,
            store,
            open: Mutex::default(),
        }
    }

    /// Opens a pack, or takes it from those that are. [`ErrorKind::CorruptWorld`] where it is
    /// not there, damaged, or not as the index says.
    pub fn get(&self, pack: u32) -> Result<Arc<PackReader>> {
        let open = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, reader)) = open().iter().find(|(number, _)| *number == pack) {
            return Ok(reader.clone());
        }
        let opened = self.open(pack).map_err(|error| self.blame(pack, error))?;
        let reader = Arc::new(opened);
        let mut open = open();
        if open.len() == MOST_OPEN {
            open.pop_front();
        }
        open.push_back((pack, reader.clone()));
        Ok(reader)
    }

    fn open(&self, pack: u32) -> Result<PackReader> {
        let wanted = self.index.packs().get(pack as usize);
        let wanted = wanted.ok_or_else(|| corrupt("it is not in the pages index"))?;
        let blob = match self.store.open_blob(&wanted.digest) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(corrupt("it is missing: fetch the world again"));
            }
            blob => blob?,
        };
        let reader = PackReader::open(blob.file)?;
        match reader.pages() == wanted.pages {
            true => Ok(reader),
            false => Err(corrupt("it does not have as many pages as the index says")),
        }
    }

    /// Says in an error which pack it is about.
    pub fn blame(&self, pack: u32, error: Error) -> Error {
        match self.index.packs().get(pack as usize) {
            Some(named) => error.within(format!("pack {}", named.digest)),
            None => error,
        }
    }
}

fn corrupt(text: &str) -> Error {
    Error::new(ErrorKind::CorruptWorld, text)
}
