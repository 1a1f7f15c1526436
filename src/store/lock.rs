//! The store's lock: shared to add things, exclusive to change the index or to sweep.
//!
//! Each lock is an open file of its own, so it also holds between the threads of
//! a process, and it ends with the process. It is never held while content is
//! written or read. A thread must not ask for a second one.

use std::fs::File;

use rustix::fs::{FlockOperation, OFlags, flock};

use super::folder;
use super::layout::Store;
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

pub(super) const LOCK_NAME: &str = "lock";

/// Others may add; nobody sweeps.
pub(super) struct Shared(#[expect(dead_code, reason = "held")] File);

/// Nobody else adds, changes the index or sweeps.
pub(super) struct Exclusive(#[expect(dead_code, reason = "held")] File);

impl Store {
    pub(super) fn lock_shared(&self) -> Result<Shared> {
        self.lock(FlockOperation::LockShared).map(Shared)
    }

    pub(super) fn lock_exclusive(&self) -> Result<Exclusive> {
        self.lock(FlockOperation::LockExclusive).map(Exclusive)
    }

    fn lock(&self, operation: FlockOperation) -> Result<File> {
        let opened = folder::open_file_with(self.private(), LOCK_NAME, OFlags::RDWR)
            .map_err(|error| self.blame(error))?;
        let Some((file, _)) = opened else {
            let gone = Error::new(ErrorKind::NotFound, "its lock is gone: it was removed");
            return Err(self.blame(gone));
        };
        rustix::io::retry_on_intr(|| flock(&file, operation))
            .context(|| format!("lock the store {}", self.path().display()))?;
        Ok(file)
    }
}

/// Locks a file that its owner keeps locked as long as it lives. `false` where another has it.
pub(super) fn own(file: &File) -> Result<bool> {
    try_lock(file, FlockOperation::NonBlockingLockExclusive)
}

/// Whether the owner of a file is dead. Only under [`Exclusive`], lest an owner that is just
/// locking it fail because of this test.
pub(super) fn is_orphan(file: &File, _lock: &Exclusive) -> Result<bool> {
    try_lock(file, FlockOperation::NonBlockingLockShared)
}

fn try_lock(file: &File, operation: FlockOperation) -> Result<bool> {
    match rustix::io::retry_on_intr(|| flock(file, operation)) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error).context(|| "lock a file of the store")?,
    }
}
