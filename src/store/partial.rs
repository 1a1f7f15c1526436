//! Blobs that are fetched from elsewhere: the digest is known beforehand, and
//! what was fetched stays when the fetching is cut short.
//!
//! A partial blob is `.worldshim/tmp/partial-HEX`, locked by who fetches it. Its
//! content is hashed again before it is gone on with.

use std::fs::File;
use std::io::{Error as IoError, Write};
use std::os::unix::fs::FileExt;

use rustix::fs::OFlags;

use super::blob::{WriteBack, Written};
use super::folder;
use super::layout::Store;
use super::lease::Lease;
use super::lock::{self, Shared};
use super::temporary::Temporary;
use crate::digest::{Digest, Hashing};
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

const PREFIX: &str = "partial-";

/// The digest that a partial blob's file is for.
pub(super) fn is_partial(name: &str) -> Option<Digest> {
    let digits = name.strip_prefix(PREFIX)?;
    format!("sha256:{digits}").parse().ok()
}

/// A blob that is being fetched. What was written stays when it is dropped, for the next time.
#[derive(Debug)]
pub struct PartialBlob {
    lease: Lease,
    temporary: Temporary,
    digest: Digest,
    size: u64,
    hashing: Hashing,
    write_back: WriteBack,
}

impl Lease {
    /// Begins, or goes on with, a blob of known digest and size (in bytes), to be fetched from
    /// [`PartialBlob::offset`] on. `None` where the store has it; then the lease holds it.
    ///
    /// While another fetches the same blob, this one starts from its beginning.
    pub fn fetch_blob(&self, digest: &Digest, size: u64) -> Result<Option<PartialBlob>> {
        if self.hold(digest)? == Some(size) {
            return Ok(None);
        }
        self.begin(digest, size)
            .map_err(|error| self.store().blame(error))
    }

    fn begin(&self, digest: &Digest, size: u64) -> Result<Option<PartialBlob>> {
        let store = self.store();
        let lock = store.lock_shared()?;
        let temporary = match take_partial(store, digest, &lock)? {
            Some(temporary) => temporary,
            None if store.blob_size(digest)? == Some(size) => return Ok(None),
            None => Temporary::create(store, "blob")?,
        };
        drop(lock);
        let mut hashing = Hashing::default();
        hashing
            .catch_up(&temporary.file, &mut Vec::new())
            .context(|| format!("read what there is of {digest}"))?;
        if hashing.size() > size {
            hashing = Hashing::default();
            temporary
                .file
                .set_len(0)
                .context(|| format!("begin {digest} again"))?;
        }
        Ok(Some(PartialBlob {
            lease: self.clone(),
            temporary,
            digest: *digest,
            size,
            hashing,
            write_back: WriteBack::default(),
        }))
    }
}

/// Opens or makes the partial blob's file and locks it. `None` where another has it, or has
/// just made a blob of it.
fn take_partial(store: &Store, digest: &Digest, _lock: &Shared) -> Result<Option<Temporary>> {
    let name = format!("{PREFIX}{}", digest.hex());
    let opened = match folder::open_file_with(store.tmp(), &name, OFlags::RDWR)? {
        Some((file, _)) => Some(file),
        None => match folder::create(store.tmp(), &name, OFlags::RDWR) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => None,
            Err(error) => return Err(error),
        },
    };
    let Some(file) = opened else {
        return Ok(None);
    };
    if !lock::own(&file)? || !still_named(store, &name, &file)? {
        return Ok(None);
    }
    let mut temporary = Temporary::adopt(store, name, file);
    temporary.owned = false;
    Ok(Some(temporary))
}

/// Whether the file, now that it is locked, still has its name: else it is a blob already.
fn still_named(store: &Store, name: &str, file: &File) -> Result<bool> {
    let ours = rustix::fs::fstat(file).context(|| format!("look at {name}"))?;
    let named = folder::stat(store.tmp(), name)?;
    Ok(named.is_some_and(|named| (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino)))
}

impl PartialBlob {
    /// How many bytes are there already: fetching goes on from here.
    pub fn offset(&self) -> u64 {
        self.hashing.size()
    }

    /// How many bytes it is to have.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Forgets what is there, to fetch all of it again.
    pub fn restart(&mut self) -> Result<()> {
        self.hashing = Hashing::default();
        self.write_back = WriteBack::default();
        let digest = &self.digest;
        self.temporary
            .file
            .set_len(0)
            .context(|| format!("begin {digest} again"))
    }

    /// Ends the blob; durable as after [`BlobWriter::finish`](super::BlobWriter::finish).
    ///
    /// [`ErrorKind::Aborted`] where bytes are missing: they can be fetched later.
    /// [`ErrorKind::CorruptWorld`] where the content is not what the digest says: it is
    /// removed.
    pub fn finish(mut self) -> Result<Written> {
        let (found, size) = std::mem::take(&mut self.hashing).finish();
        let (expected, digest) = (self.size, self.digest);
        if size != expected {
            return Err(Error::new(
                ErrorKind::Aborted,
                format!("only {size} of {expected} bytes of {digest} came: try again"),
            ));
        }
        if found != digest {
            self.temporary.owned = true;
            return Err(Error::new(
                ErrorKind::CorruptWorld,
                format!("what came as {digest} has the digest {found}: it was thrown away"),
            ));
        }
        let written = self.lease.keep(self.temporary, digest, size)?;
        Ok(written)
    }
}

impl Write for PartialBlob {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let offset = self.hashing.size();
        if bytes.len() as u64 > self.size - offset {
            return Err(IoError::new(
                std::io::ErrorKind::InvalidData,
                format!("{} is longer than its {} bytes", self.digest, self.size),
            ));
        }
        let count = self.temporary.file.write_at(bytes, offset)?;
        self.hashing.update(&bytes[..count]);
        let size = self.hashing.size();
        self.write_back.reached(&self.temporary.file, size);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
