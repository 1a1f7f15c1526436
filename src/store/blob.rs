//! Blobs: writing them once, and opening them.

use std::fs::File;
use std::io::Write;
use std::num::NonZero;

use rustix::fs::{Advice, FileType, fadvise};

use super::folder;
use super::layout::Store;
use super::lease::Lease;
use super::temporary::Temporary;
use crate::digest::{Digest, Hashing};
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

/// How many bytes are written before the disk is set to work on them, so that little is
/// left to wait for when the blob is made durable.
const WRITE_BACK: u64 = 8 << 20;

/// An open blob. Its content is not checked: see [`Store::read`] for documents.
#[derive(Debug)]
pub struct Blob {
    /// The file, open for reading.
    pub file: File,
    /// In bytes.
    pub size: u64,
}

/// What became of a blob that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Of its content.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// Whether the store did not have it before.
    pub new: bool,
}

/// A blob being written; hashed on the way. It writes what it is given at once, so it wants
/// large pieces. Removed when dropped unfinished.
#[derive(Debug)]
pub struct BlobWriter {
    lease: Lease,
    temporary: Temporary,
    hashing: Hashing,
    write_back: WriteBack,
}

/// Has the kernel write what is dirty while more comes.
#[derive(Debug, Default)]
pub(super) struct WriteBack {
    /// How far the disk was set to work, in bytes.
    sent: u64,
}

impl WriteBack {
    /// So much of the file has been written.
    pub fn reached(&mut self, file: &File, size: u64) {
        if size.saturating_sub(self.sent) >= WRITE_BACK {
            // The kernel starts to write what is dirty, and keeps it.
            let length = NonZero::new(size - self.sent);
            let _ = fadvise(file, self.sent, length, Advice::DontNeed);
            self.sent = size;
        }
    }
}

impl Lease {
    /// Begins a blob, which the lease will hold.
    pub fn write_blob(&self) -> Result<BlobWriter> {
        let store = self.store();
        let lock = store.lock_shared()?;
        let temporary = Temporary::create(store, "blob").map_err(|error| store.blame(error))?;
        drop(lock);
        Ok(BlobWriter {
            lease: self.clone(),
            temporary,
            hashing: Hashing::default(),
            write_back: WriteBack::default(),
        })
    }

    /// Stores a blob that is in memory.
    pub fn put(&self, bytes: &[u8]) -> Result<Written> {
        let digest = Digest::of(bytes);
        let size = bytes.len() as u64;
        if self.hold(&digest)? == Some(size) {
            return Ok(Written {
                digest,
                size,
                new: false,
            });
        }
        let mut writer = self.write_blob()?;
        writer
            .write_all(bytes)
            .context(|| format!("write a blob into {}", self.store().path().display()))?;
        writer.finish()
    }

    /// Makes a complete file a blob, under the lease: durable before it gets its name.
    pub(super) fn keep(
        &self,
        mut temporary: Temporary,
        digest: Digest,
        size: u64,
    ) -> Result<Written> {
        let store = self.store();
        let new = self.hold(&digest)? != Some(size);
        temporary.owned |= !new;
        if new {
            temporary
                .file
                .sync_all()
                .context(|| format!("sync a blob in {}", store.path().display()))?;
            // Held since `hold`, so it is not swept between the rename and now.
            temporary
                .become_blob(&digest.hex())
                .map_err(|error| store.blame(error))?;
            self.remember(&digest, size);
        }
        Ok(Written { digest, size, new })
    }
}

impl BlobWriter {
    /// How many bytes were written.
    pub fn size(&self) -> u64 {
        self.hashing.size()
    }

    /// Ends the blob. It has its name when this returns, and is durable once
    /// [`Store::sync`] or [`Store::publish`] has been called too.
    pub fn finish(self) -> Result<Written> {
        let (digest, size) = self.hashing.finish();
        self.lease.keep(self.temporary, digest, size)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.temporary.file.write(bytes)?;
        self.hashing.update(&bytes[..count]);
        let size = self.hashing.size();
        self.write_back.reached(&self.temporary.file, size);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Store {
    /// Opens a blob. Who reads it for long holds it in a [`Lease`] (an open file stays
    /// readable, though, when its blob is swept).
    ///
    /// [`ErrorKind::NotFound`] where there is none.
    pub fn open_blob(&self, digest: &Digest) -> Result<Blob> {
        self.blob_if_there(digest)
            .and_then(|blob| {
                blob.ok_or_else(|| {
                    Error::new(ErrorKind::NotFound, format!("there is no blob {digest}"))
                })
            })
            .map_err(|error| self.blame(error))
    }

    pub(super) fn blob_if_there(&self, digest: &Digest) -> Result<Option<Blob>> {
        let opened = folder::open_file(self.blobs(), &digest.hex())?;
        Ok(opened.map(|(file, stat)| Blob {
            file,
            size: stat.st_size as u64,
        }))
    }

    /// The size of a blob in bytes; `None` where there is none.
    pub fn blob_size(&self, digest: &Digest) -> Result<Option<u64>> {
        match folder::stat(self.blobs(), &digest.hex())? {
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                Ok(Some(stat.st_size as u64))
            }
            Some(_) => Err(Error::new(
                ErrorKind::CorruptWorld,
                format!("the blob {digest} is not a regular file: remove it"),
            )),
            None => Ok(None),
        }
    }

    /// Reads a blob of at most `limit` bytes and checks its digest.
    ///
    /// [`ErrorKind::NotFound`] where there is none, [`ErrorKind::CorruptWorld`] where it is
    /// larger or damaged.
    pub fn read(&self, digest: &Digest, limit: usize) -> Result<Vec<u8>> {
        let blob = self.open_blob(digest)?;
        let bytes = folder::read_open(&blob.file, blob.size, limit)
            .map_err(|error| self.blame(error.within(format!("the blob {digest}"))))?;
        match Digest::of(&bytes) {
            found if found == *digest => Ok(bytes),
            found => Err(self.blame(Error::new(
                ErrorKind::CorruptWorld,
                format!("the blob {digest} is damaged: its content has the digest {found}"),
            ))),
        }
    }

    /// Makes the names of all blobs written so far durable.
    pub fn sync(&self) -> Result<()> {
        folder::sync(self.blobs(), "blobs/sha256").map_err(|error| self.blame(error))
    }
}

/// Asserts that blobs can be written by other threads.
const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<BlobWriter>();
};
