//! Files and folders below the store's root, reached through descriptors.
//!
//! Invariant: below the root no symlink is followed, and nothing but a regular
//! file is opened.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;

use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

/// Owner only: what lies here is secret.
pub(super) const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
/// Owner only.
pub(super) const PRIVATE_FOLDER: Mode = Mode::RWXU;

/// Opens a folder inside another, which is made if it is not there.
pub(super) fn open_or_make(dir: BorrowedFd, name: &str) -> Result<OwnedFd> {
    match rustix::fs::mkdirat(dir, name, PRIVATE_FOLDER) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => Err(error).context(|| format!("create the folder {name}"))?,
    }
    open_folder(dir, name)
}

/// Opens a folder inside another.
pub(super) fn open_folder(dir: BorrowedFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty()).context(|| format!("open the folder {name}"))
}

/// Opens a regular file for reading; `None` where there is none of that name.
pub(super) fn open_file(dir: BorrowedFd, name: &str) -> Result<Option<(File, Stat)>> {
    open_file_with(dir, name, OFlags::RDONLY)
}

/// Opens a regular file with more flags; `None` where there is none of that name.
pub(super) fn open_file_with(
    dir: BorrowedFd,
    name: &str,
    flags: OFlags,
) -> Result<Option<(File, Stat)>> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = match openat(dir, name, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => return Err(not_a_file(name)),
        Err(error) => Err(error).context(|| format!("open {name}"))?,
    };
    let stat = rustix::fs::fstat(&fd).context(|| format!("look at {name}"))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(Some((File::from(fd), stat))),
        _ => Err(not_a_file(name)),
    }
}

fn not_a_file(name: &str) -> Error {
    Error::new(
        ErrorKind::CorruptWorld,
        format!("{name} is not a regular file: remove it"),
    )
}

/// Makes a new file, mode 0600; the name must be free.
pub(super) fn create(dir: BorrowedFd, name: &str, flags: OFlags) -> Result<File> {
    let flags = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, PRIVATE_FILE)
        .map(File::from)
        .context(|| format!("create {name}"))
}

/// Reads a whole file of at most `limit` bytes; `None` where there is none of that name.
pub(super) fn read(dir: BorrowedFd, name: &str, limit: usize) -> Result<Option<Vec<u8>>> {
    let Some((file, stat)) = open_file(dir, name)? else {
        return Ok(None);
    };
    read_open(&file, stat.st_size as u64, limit)
        .map(Some)
        .map_err(|error| error.within(name))
}

/// Reads an open file of at most `limit` bytes.
pub(super) fn read_open(file: &File, size: u64, limit: usize) -> Result<Vec<u8>> {
    if size > limit as u64 {
        return Err(Error::new(
            ErrorKind::CorruptWorld,
            format!("{size} bytes, at most {limit} are allowed"),
        ));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    file.take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .context(|| "read it")?;
    Ok(bytes)
}

/// What a name stands for, without following a symlink; `None` where it is free.
pub(super) fn stat(dir: BorrowedFd, name: &str) -> Result<Option<Stat>> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error).context(|| format!("look at {name}"))?,
    }
}

/// Removes a file; no error where it is gone already.
pub(super) fn remove(dir: BorrowedFd, name: &str) -> Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error).context(|| format!("remove {name}"))?,
    }
}

/// Makes names in a folder durable.
pub(super) fn sync(dir: impl AsFd, what: &str) -> Result<()> {
    rustix::fs::fsync(dir).context(|| format!("sync the folder {what}"))
}

/// The names in a folder, sorted, without `.` and `..`. A name that is not UTF-8 is
/// escaped: it is none of ours, and no file is found by it.
pub(super) fn names(dir: BorrowedFd) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir).context(|| "list a folder of the store")? {
        let entry = entry.context(|| "list a folder of the store")?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(match std::str::from_utf8(name) {
                Ok(name) => name.to_owned(),
                Err(_) => name.escape_ascii().to_string(),
            });
        }
    }
    names.sort_unstable();
    Ok(names)
}
