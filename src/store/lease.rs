//! Leases: what a living process relies on, kept from the sweep.
//!
//! A lease is a file in `.worldshim/leases`, locked by its owner as long as it
//! lives: one digest a line, `sha256:` and 64 digits. A line is appended under
//! the store's shared lock before the blob's presence is checked, so a sweep
//! (under the exclusive one) comes wholly before, and the blob is seen to be
//! gone, or wholly after, and the line is seen. What a held manifest or index
//! names is held with it. A full disk may cut a line short; nobody relies on
//! that one, and the next begins with a newline.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use oci_spec::image::MediaType;
use rustix::fs::OFlags;

use super::document::descriptor;
use super::folder;
use super::layout::Store;
use super::lock::{self, Exclusive, Shared};
use super::reach::Reach;
use super::temporary::random_name;
use crate::digest::Digest;
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

/// Most bytes of a lease that are read: a million blobs.
const MAX_LEASE: usize = 72 << 20;

/// Keeps blobs from [`Store::gc`] as long as any clone of it lives.
#[derive(Clone, Debug)]
pub struct Lease(Arc<Held>);

#[derive(Debug)]
struct Held {
    store: Store,
    name: String,
    file: File,
    /// What is known to be there, with its size in bytes.
    known: Mutex<BTreeMap<Digest, u64>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Err(error) = folder::remove(self.store.leases(), &self.name) {
            log::warn!("{}", self.store.blame(error));
        }
    }
}

impl Store {
    /// A new lease that holds nothing yet.
    pub fn lease(&self) -> Result<Lease> {
        self.new_lease(&self.lock_shared()?)
            .map_err(|error| self.blame(error))
    }

    pub(super) fn new_lease(&self, _lock: &Shared) -> Result<Lease> {
        let name = random_name()?;
        let file = folder::create(self.leases(), &name, OFlags::WRONLY | OFlags::APPEND)?;
        let held = Held {
            store: self.clone(),
            name,
            file,
            known: Mutex::default(),
        };
        match lock::own(&held.file)? {
            true => Ok(Lease(Arc::new(held))),
            false => Err(Error::new(
                ErrorKind::Internal,
                "a new lease is locked by another",
            )),
        }
    }

    /// What living leases hold; and the names of those whose owners are dead.
    pub(super) fn leased(&self, lock: &Exclusive) -> Result<(BTreeSet<Digest>, Vec<String>)> {
        let mut leased = BTreeSet::new();
        let mut dead = Vec::new();
        for name in folder::names(self.leases())? {
            let Some((file, stat)) = folder::open_file(self.leases(), &name)? else {
                continue;
            };
            if lock::is_orphan(&file, lock)? {
                dead.push(name);
                continue;
            }
            let bytes = folder::read_open(&file, stat.st_size as u64, MAX_LEASE)
                .map_err(|error| error.within(format!("the lease {name}")))?;
            let text = String::from_utf8_lossy(&bytes);
            leased.extend(text.lines().filter_map(|line| line.parse::<Digest>().ok()));
        }
        Ok((leased, dead))
    }
}

impl Lease {
    /// Holds a blob. Returns its size in bytes, or `None` where it is not there (any more).
    pub fn hold(&self, digest: &Digest) -> Result<Option<u64>> {
        if let Some(size) = self.known(digest) {
            return Ok(Some(size));
        }
        let store = &self.0.store;
        let lock = store.lock_shared()?;
        self.note([digest], &lock)
            .and_then(|()| self.check(digest))
            .map_err(|error| store.blame(error))
    }

    /// Holds a world and all that belongs to it: its manifest's config, layers and so on.
    ///
    /// [`ErrorKind::NotFound`] where the manifest is not there,
    /// [`ErrorKind::CorruptWorld`] where anything it needs is missing or damaged.
    pub fn hold_world(&self, manifest: &Digest) -> Result<()> {
        let store = &self.0.store;
        let lock = store.lock_shared()?;
        let media_type = store.document(manifest)?.media_type();
        self.hold_all(manifest, media_type, &lock)
            .map_err(|error| store.blame(error))
    }

    fn hold_all(&self, manifest: &Digest, media_type: MediaType, lock: &Shared) -> Result<()> {
        let store = &self.0.store;
        let size = store.blob_size(manifest)?.unwrap_or_default();
        let reach = Reach::of(store, &descriptor(media_type, size, manifest)?)?;
        self.hold_reach(reach, Some(*manifest), lock)
    }

    /// Holds all that is reached, which must be there.
    fn hold_reach(&self, mut reach: Reach, world: Option<Digest>, lock: &Shared) -> Result<()> {
        self.note(reach.blobs.keys(), lock)?;
        reach.check_presence(&self.0.store);
        reach.must_be_sound(world)?;
        for digest in reach.blobs.keys() {
            self.check(digest)?;
        }
        Ok(())
    }

    /// Writes digests down, before anything relies on them.
    pub(super) fn note<'a>(
        &self,
        digests: impl IntoIterator<Item = &'a Digest>,
        _lock: &Shared,
    ) -> Result<()> {
        let mut lines = String::from("\n");
        for digest in digests {
            let _ = writeln!(lines, "{digest}");
        }
        (&self.0.file)
            .write_all(lines.as_bytes())
            .context(|| format!("write the lease {}", self.0.name))
    }

    /// Whether a digest that was noted is there.
    fn check(&self, digest: &Digest) -> Result<Option<u64>> {
        let size = self.0.store.blob_size(digest)?;
        if let Some(size) = size {
            self.remember(digest, size);
        }
        Ok(size)
    }

    pub(super) fn remember(&self, digest: &Digest, size: u64) {
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(*digest, size);
    }

    pub(super) fn known(&self, digest: &Digest) -> Option<u64> {
        let known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(digest).copied()
    }

    /// The store that it is of.
    pub fn store(&self) -> &Store {
        &self.0.store
    }
}

/// Asserts that leases go from thread to thread.
const _: fn() = || {
    fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Lease>();
};
