//! Files in `.worldshim/tmp` while they are being written.
//!
//! Invariant: such a file is locked by its writer from its making on (both
//! under the store's lock, so that no sweep sees it unlocked), and removed when
//! its writer drops it. What a killed writer left is unlocked, and swept.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

use rustix::fs::{OFlags, renameat};

use super::folder;
use super::layout::Store;
use super::lock;
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

/// A temporary file of ours.
#[derive(Debug)]
pub(super) struct Temporary {
    store: Store,
    name: String,
    pub file: File,
    /// Removed when dropped.
    pub owned: bool,
}

impl Temporary {
    /// Makes an empty one. Its caller holds the store's lock, shared or exclusive.
    pub fn create(store: &Store, kind: &str) -> Result<Temporary> {
        let name = format!("{kind}-{}", random_name()?);
        let file = folder::create(store.tmp(), &name, OFlags::RDWR)?;
        Self::own(store, name, file)
    }

    /// Takes over a file that is there and locked by this process.
    pub fn adopt(store: &Store, name: String, file: File) -> Temporary {
        Temporary {
            store: store.clone(),
            name,
            file,
            owned: true,
        }
    }

    fn own(store: &Store, name: String, file: File) -> Result<Temporary> {
        let temporary = Self::adopt(store, name, file);
        match lock::own(&temporary.file)? {
            true => Ok(temporary),
            false => Err(Error::new(
                ErrorKind::Internal,
                "a new file is locked by another",
            )),
        }
    }

    /// Writes the file, makes it durable and puts it in the place of `target` in the root.
    pub fn replace(mut self, bytes: &[u8], target: &str) -> Result<()> {
        let what = || format!("write {target}");
        self.file.write_all(bytes).context(what)?;
        self.file.sync_all().context(what)?;
        renameat(self.store.tmp(), &self.name, self.store.root(), target).context(what)?;
        self.owned = false;
        folder::sync(self.store.root(), ".")
    }

    /// Gives the file its name among the blobs.
    pub fn become_blob(mut self, name: &str) -> Result<()> {
        renameat(self.store.tmp(), &self.name, self.store.blobs(), name)
            .context(|| format!("name the blob {name}"))?;
        self.owned = false;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = folder::remove(self.store.tmp().as_fd(), &self.name)
        {
            log::warn!("{}", self.store.blame(error));
        }
    }
}

/// A name that is free: 16 random hexadecimal digits.
pub(super) fn random_name() -> Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::caused_by(ErrorKind::HostUnfit, "get random bytes", error))?;
    Ok(hex::encode(bytes))
}
