//! A container's writable layer on disk.

use super::overlay::Layering;
use crate::Result;
use crate::error::IoContext;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use std::path::{Path, PathBuf};

/// A writable layer: the upper directory of an overlay, or a whole rootfs.
#[derive(Debug)]
pub struct Upper {
    dir: OwnedFd,
    path: PathBuf,
    layering: Layering,
}

impl Upper {
    /// Opens the layer at `path` on the host.
    pub fn open(path: impl Into<PathBuf>, layering: Layering) -> Result<Upper> {
        let path = path.into();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&path, flags, Mode::empty())
            .context(|| format!("open the writable layer {}", path.display()))?;
        Ok(Upper {
            dir,
            path,
            layering,
        })
    }

    /// Where the layer is on the host.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How the layer is to be understood.
    pub fn layering(&self) -> Layering {
        self.layering
    }

    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// Opens one name in a directory: no link is followed, no mount entered, and
/// a fifo does not block.
pub(super) fn open_name(
    dir: BorrowedFd<'_>,
    name: &[u8],
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let flags = match flags.contains(OFlags::PATH) {
        true => flags,
        false => flags | OFlags::NONBLOCK,
    };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(dir, name, flags, Mode::empty(), resolve)
}

/// A second descriptor of an open directory, with a read position of its own.
pub(super) fn reopen_dir(dir: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, c".", flags, Mode::empty())
}

/// The names in an open directory, `.` and `..` left out, with their types
/// as far as the filesystem tells.
pub(super) fn list(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<Name>> {
    let mut names = Vec::new();
    let mut buffer = Vec::with_capacity(64 << 10);
    let mut entries = rustix::fs::RawDir::new(dir, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let bytes = entry.file_name().to_bytes();
        if bytes != b"." && bytes != b".." {
            names.push(Name {
                bytes: bytes.into(),
                is_dir: entry.file_type() == rustix::fs::FileType::Directory,
            });
        }
    }
    Ok(names)
}

/// A name in a directory.
#[derive(Debug)]
pub(super) struct Name {
    pub bytes: Box<[u8]>,
    /// `false` may also mean that the filesystem does not tell.
    pub is_dir: bool,
}
