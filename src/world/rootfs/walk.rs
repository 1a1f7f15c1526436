//! Reads a layer on disk, entry by entry, in the order of its archive.
//!
//! Every name is looked at before it is opened, and only directories and
//! regular files are opened: no link is followed, no mount entered, no fifo,
//! device or socket touched.

use super::entry::{Device, Entry, EntryPath, Kind, Meta, Mtime};
use super::overlay::{Marks, Opacity};
use super::upper::{Name, Upper, list, open_name, reopen_dir};
use super::xattrs::{self, Holder};
use super::{holes, limits};
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, OFlags, Statx, StatxAttributes, StatxFlags, statx};
use std::collections::HashMap;

/// Flags on an inode that no archive keeps. Those that a container sets
/// through an overlay are not on the inode, but in an attribute.
const FLAGS: StatxAttributes = StatxAttributes::IMMUTABLE
    .union(StatxAttributes::APPEND)
    .union(StatxAttributes::VERITY);

/// A walk through one layer.
pub(super) struct Walk<'u> {
    upper: &'u Upper,
    started: bool,
    /// The directory just entered is opaque, which is to be said next.
    opaque: Option<EntryPath>,
    /// The directories being read, the innermost last.
    frames: Vec<Frame>,
    /// The first name of every inode that has several, by device and inode.
    first_names: HashMap<(u64, u64), EntryPath>,
    file: Option<OwnedFd>,
}

/// A directory being read.
struct Frame {
    dir: OwnedFd,
    path: EntryPath,
    names: std::vec::IntoIter<Name>,
    holds_whiteouts: bool,
}

impl<'u> Walk<'u> {
    /// Begins at the layer's root.
    pub fn new(upper: &'u Upper) -> Self {
        Walk {
            upper,
            started: false,
            opaque: None,
            frames: Vec::new(),
            first_names: HashMap::new(),
            file: None,
        }
    }

    /// The open file, if the entry just read is one with data of its own.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(|file| file.as_fd())
    }

    /// The next entry.
    pub fn next(&mut self) -> Result<Option<Entry>> {
        self.file = None;
        if !self.started {
            self.started = true;
            return self.root().map(Some);
        }
        if let Some(path) = self.opaque.take() {
            return Ok(Some(Entry::mark(path, Kind::Opaque)));
        }
        while let Some(frame) = self.frames.last_mut() {
            match frame.names.next() {
                Some(name) => return self.entry(&name.bytes).map(Some),
                None => self.frames.pop(),
            };
        }
        Ok(None)
    }

    fn root(&mut self) -> Result<Entry> {
        let path = EntryPath::default();
        let dir = reopen_dir(self.upper.dir()).context(|| self.at(&path, "open"))?;
        let stat =
            stat(dir.as_fd(), b"", AtFlags::EMPTY_PATH).context(|| self.at(&path, "look at"))?;
        self.directory(dir, path, &stat)
    }

    /// The entry called `name` in the innermost directory.
    fn entry(&mut self, name: &[u8]) -> Result<Entry> {
        let frame = self.frames.last().expect("a name is read in a directory");
        let path = frame.path.join(name);
        let dir = frame.dir.as_fd();
        let stat =
            stat(dir, name, AtFlags::SYMLINK_NOFOLLOW).context(|| self.at(&path, "look at"))?;
        if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return Err(obstacle(&path, "something is mounted there"));
        }
        if stat.stx_attributes.intersects(FLAGS) {
            return Err(obstacle(
                &path,
                "it is immutable, append-only or verity-protected (see lsattr), which a tar cannot say",
            ));
        }
        let device = Device {
            major: stat.stx_rdev_major,
            minor: stat.stx_rdev_minor,
        };
        let file_type = FileType::from_raw_mode(stat.stx_mode.into());
        match file_type {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME;
                let dir = open_name(dir, name, flags).context(|| self.at(&path, "open"))?;
                return self.directory(dir, path, &stat);
            }
            FileType::CharacterDevice if device == (Device { major: 0, minor: 0 }) => {
                return Ok(Entry::mark(path, Kind::Whiteout));
            }
            _ => {}
        }
        if stat.stx_nlink > 1
            && let Some(first) = self.first_names.get(&identity(&stat))
        {
            let target = first.clone();
            let kind = Kind::Hardlink { target };
            // Said once more: containerd sets the owner anew at every name,
            // which clears a file's capabilities.
            let marks = self.marks(Holder::Named(dir, name), &path)?;
            let meta = meta(&stat, marks.xattrs);
            return Ok(Entry { path, kind, meta });
        }
        let kind = match file_type {
            FileType::RegularFile => return self.regular(name, path, &stat),
            FileType::Symlink => Kind::Symlink {
                target: rustix::fs::readlinkat(dir, name, Vec::new())
                    .context(|| self.at(&path, "read the link"))?
                    .into_bytes(),
            },
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice => Kind::CharDevice(device),
            FileType::BlockDevice => Kind::BlockDevice(device),
            _ => return Err(obstacle(&path, "it is of an unknown type")),
        };
        let marks = self.marks(Holder::Named(dir, name), &path)?;
        let meta = meta(&stat, marks.xattrs);
        self.remember(&stat, &path);
        Ok(Entry { path, kind, meta })
    }

    fn directory(&mut self, dir: OwnedFd, path: EntryPath, stat: &Statx) -> Result<Entry> {
        if self.frames.len() > limits::DEPTH {
            return Err(obstacle(&path, "it is too many directories deep"));
        }
        let marks = self.marks(Holder::Open(dir.as_fd()), &path)?;
        let mut names = list(dir.as_fd()).context(|| self.at(&path, "list"))?;
        names.sort_unstable_by(|a, b| a.bytes.cmp(&b.bytes));
        self.frames.push(Frame {
            dir,
            path: path.clone(),
            names: names.into_iter(),
            holds_whiteouts: marks.opacity == Opacity::HoldsWhiteouts,
        });
        if marks.opacity == Opacity::Opaque {
            self.opaque = Some(path.clone());
        }
        Ok(Entry {
            path,
            kind: Kind::Directory,
            meta: meta(stat, marks.xattrs),
        })
    }

    fn regular(&mut self, name: &[u8], path: EntryPath, seen: &Statx) -> Result<Entry> {
        let frame = self.frames.last().expect("a file is read in a directory");
        let flags = OFlags::RDONLY | OFlags::NOATIME;
        let file = open_name(frame.dir.as_fd(), name, flags).context(|| self.at(&path, "open"))?;
        let stat =
            stat(file.as_fd(), b"", AtFlags::EMPTY_PATH).context(|| self.at(&path, "look at"))?;
        if identity(&stat) != identity(seen) {
            return Err(obstacle(&path, "it was replaced while it was read"));
        }
        let marks = self.marks(Holder::Open(file.as_fd()), &path)?;
        if marks.whiteout {
            return match frame.holds_whiteouts && stat.stx_size == 0 {
                true => Ok(Entry::mark(path, Kind::Whiteout)),
                false => Err(obstacle(
                    &path,
                    "overlayfs marked it as a whiteout, but it is none",
                )),
            };
        }
        let segments = holes::find(file.as_fd(), stat.stx_size)
            .context(|| self.at(&path, "look for holes in"))?;
        self.file = Some(file);
        self.remember(&stat, &path);
        Ok(Entry {
            path,
            kind: Kind::File {
                size: stat.stx_size,
                segments,
            },
            meta: meta(&stat, marks.xattrs),
        })
    }

    fn marks(&self, holder: Holder<'_>, path: &EntryPath) -> Result<Marks> {
        let xattrs = xattrs::read(holder).context(|| self.at(path, "read the attributes of"))?;
        self.upper.layering().marks(xattrs, path)
    }

    fn remember(&mut self, stat: &Statx, path: &EntryPath) {
        if stat.stx_nlink > 1 {
            self.first_names.insert(identity(stat), path.clone());
        }
    }

    fn at(&self, path: &EntryPath, doing: &str) -> String {
        format!("{doing} {path} in {}", self.upper.path().display())
    }
}

/// What is on disk under a name.
pub(super) enum Found {
    Directory(OwnedFd),
    Whiteout,
    /// A regular file that has no other name; its attributes are not read.
    OnlyName(OwnedFd, Kind, Meta),
    Other,
}

/// Looks at one name in a directory, as a walk does.
pub(super) fn look(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Found> {
    let at = || "look at what is there";
    let seen = stat(dir, name, AtFlags::SYMLINK_NOFOLLOW).context(at)?;
    match FileType::from_raw_mode(seen.stx_mode.into()) {
        FileType::Directory => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME;
            Ok(Found::Directory(open_name(dir, name, flags).context(at)?))
        }
        FileType::CharacterDevice if (seen.stx_rdev_major, seen.stx_rdev_minor) == (0, 0) => {
            Ok(Found::Whiteout)
        }
        FileType::RegularFile if seen.stx_nlink == 1 && !seen.stx_attributes.intersects(FLAGS) => {
            let flags = OFlags::RDONLY | OFlags::NOATIME;
            let file = open_name(dir, name, flags).context(at)?;
            let size = seen.stx_size;
            let segments = holes::find(file.as_fd(), size).context(at)?;
            let kind = Kind::File { size, segments };
            Ok(Found::OnlyName(file, kind, meta(&seen, Vec::new())))
        }
        _ => Ok(Found::Other),
    }
}

fn stat(dir: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> rustix::io::Result<Statx> {
    statx(
        dir,
        name,
        flags | AtFlags::NO_AUTOMOUNT,
        StatxFlags::BASIC_STATS,
    )
}

fn identity(stat: &Statx) -> (u64, u64) {
    let device = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
    (device, stat.stx_ino)
}

fn meta(stat: &Statx, xattrs: Vec<super::entry::Xattr>) -> Meta {
    Meta {
        mode: u32::from(stat.stx_mode) & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        mtime: Mtime {
            seconds: stat.stx_mtime.tv_sec,
            nanos: stat.stx_mtime.tv_nsec,
        },
        xattrs,
    }
}

fn obstacle(path: &EntryPath, why: &str) -> Error {
    Error::new(
        ErrorKind::Obstacle,
        format!("{path} cannot be captured: {why}"),
    )
}
