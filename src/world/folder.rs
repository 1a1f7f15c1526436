//! The entries of a world directory, reached through its descriptor.
//!
//! Invariant: nothing here follows a symlink, leaves the directory, blocks on
//! a fifo or opens anything but a regular file.

use std::fs::File;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::file_name::FileName;
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

/// Most entries in a world directory.
pub const MAX_ENTRIES: usize = super::manifest::MAX_FILES + 64;

/// What tells whether a file is still the same: any write changes the ctime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Size in bytes.
    pub size: u64,
    dev: u64,
    ino: u64,
    ctime: (i64, i64),
}

impl Stamp {
    fn of(stat: &rustix::fs::Stat) -> Stamp {
        Stamp {
            size: stat.st_size as u64,
            dev: stat.st_dev,
            ino: stat.st_ino,
            ctime: (stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }

    /// The stamp of an open file.
    pub fn of_file(file: &File) -> Result<Stamp> {
        let stat = rustix::fs::fstat(file).context(|| "look at an open file")?;
        Ok(Stamp::of(&stat))
    }
}

/// One entry of a directory; always a regular file.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Name, any bytes.
    pub name: Vec<u8>,
    /// What it was when it was listed.
    pub stamp: Stamp,
}

impl Entry {
    /// The name, where it is one that a world may have.
    pub fn file_name(&self) -> Result<FileName> {
        FileName::new(String::from_utf8_lossy(&self.name))
    }
}

/// Lists a directory. [`ErrorKind::CorruptWorld`] where an entry is not a regular file or
/// there are more than [`MAX_ENTRIES`].
pub fn list(dir: BorrowedFd) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for name in names(dir)? {
        if entries.len() == MAX_ENTRIES {
            return Err(corrupt(format!(
                "more than {MAX_ENTRIES} files in the directory"
            )));
        }
        let stat = statat(dir, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)
            .context(|| format!("look at {}", name.escape_ascii()))?;
        must_be_regular(&name, &stat)?;
        let stamp = Stamp::of(&stat);
        entries.push(Entry { name, stamp });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// The names in a directory, without `.` and `..`, in no order.
pub fn names(dir: BorrowedFd) -> Result<Vec<Vec<u8>>> {
    let entries = Dir::read_from(dir).context(|| "list the directory")?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.context(|| "list the directory")?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." && names.len() <= MAX_ENTRIES {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// Opens a file for reading; it must be there.
pub fn open(dir: BorrowedFd, name: &FileName) -> Result<File> {
    open_if_there(dir, name)?.ok_or_else(|| {
        corrupt(format!(
            "{name} is missing: the world is incomplete, fetch it again or take another checkpoint"
        ))
    })
}

/// Opens a file for reading, if there is one of that name.
pub fn open_if_there(dir: BorrowedFd, name: &FileName) -> Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = match openat(dir, name.as_str(), flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(not_regular(name.as_str(), FileType::Symlink)),
        Err(Errno::NXIO) => return Err(not_regular(name.as_str(), FileType::Socket)),
        error => error.context(|| format!("open {name}"))?,
    };
    let stat = rustix::fs::fstat(&fd).context(|| format!("look at {name}"))?;
    must_be_regular(name.as_str().as_bytes(), &stat)?;
    Ok(Some(File::from(fd)))
}

/// Makes a new file, mode 0600; the name must be free.
pub fn create(dir: BorrowedFd, name: &str) -> Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd =
        openat(dir, name, flags, Mode::RUSR | Mode::WUSR).context(|| format!("create {name}"))?;
    Ok(File::from(fd))
}

fn must_be_regular(name: &[u8], stat: &rustix::fs::Stat) -> Result<()> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        other => Err(not_regular(&name.escape_ascii().to_string(), other)),
    }
}

fn not_regular(name: &str, kind: FileType) -> Error {
    let kind = match kind {
        FileType::Symlink => "a symbolic link",
        FileType::Directory => "a directory",
        FileType::Fifo => "a fifo",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "of unknown type",
    };
    corrupt(format!(
        "{name} is {kind}: a world directory holds regular files only; do not use it"
    ))
}

fn corrupt(message: String) -> Error {
    Error::new(ErrorKind::CorruptWorld, message)
}
