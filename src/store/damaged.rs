//! Setting damaged blobs aside, so that they can be fetched or made again.
//!
//! A blob whose content is not what its name says would stand in the way: the
//! store has it already, as far as a writer can tell. It is moved to
//! `.worldshim/damaged/HEX` and never removed by us: it may be the best there is.

use std::os::fd::AsFd;

use rustix::fs::{FileType, Stat, renameat};

use super::folder;
use super::layout::Store;
use crate::Result;
use crate::digest::{Digest, hash_file};
use crate::error::IoContext;

pub(super) const DAMAGED: &str = "damaged";

impl Store {
    /// Moves a blob away if its content is not what its name says, or if it is no file at all.
    /// Returns whether it was; one that is sound, or not there, stays as it is.
    pub fn set_aside(&self, digest: &Digest) -> Result<bool> {
        self.set_aside_inside(digest)
            .map_err(|error| self.blame(error))
    }

    fn set_aside_inside(&self, digest: &Digest) -> Result<bool> {
        let name = digest.hex();
        let Some(before) = folder::stat(self.blobs(), &name)? else {
            return Ok(false);
        };
        if is_file(&before)
            && let Some(blob) = self.blob_if_there(digest)?
            && hash_file(&blob.file, format!("the blob {digest}"))?.0 == *digest
        {
            return Ok(false);
        }
        let _lock = self.lock_exclusive()?;
        let now = folder::stat(self.blobs(), &name)?;
        if now.is_none_or(|now| (now.st_dev, now.st_ino) != (before.st_dev, before.st_ino)) {
            return Ok(false); // Another was faster.
        }
        let damaged = folder::open_or_make(self.private(), DAMAGED)?;
        renameat(self.blobs(), &name, &damaged, &name)
            .context(|| format!("set the blob {digest} aside"))?;
        folder::sync(damaged.as_fd(), DAMAGED)?;
        folder::sync(self.blobs(), "blobs/sha256")?;
        Ok(true)
    }
}

fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}
