//! Reads a layer on disk, entry by entry, in the order of its archive. Several layers, one
//! on the other, are read as the one that they are together: what the lower ones hold as far
//! as it shows through, and what any of them hides of what lies below them all.
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

/// A walk through a layer, or through several as if they were one.
pub(super) struct Walk<'u> {
    /// The topmost first.
    layers: Vec<&'u Upper>,
    started: bool,
    /// The directory just entered is opaque, which is to be said next.
    opaque: Option<EntryPath>,
    /// The directories being read, the innermost last.
    frames: Vec<Frame>,
    /// The first name of every inode that has several, by device and inode.
    first_names: HashMap<(u64, u64), EntryPath>,
    file: Option<OwnedFd>,
}

/// A directory being read: in every layer that it is in and shows in, the topmost first.
struct Frame {
    dirs: Vec<LayerDir>,
    path: EntryPath,
    /// Each with the first of `dirs` that has it.
    names: std::vec::IntoIter<(Name, usize)>,
}

/// A directory of one layer.
struct LayerDir {
    fd: OwnedFd,
    layer: usize,
    stat: Statx,
    marks: Marks,
}

impl<'u> Walk<'u> {
    /// Begins at the layer's root.
    pub fn new(upper: &'u Upper) -> Self {
        Walk::through(vec![upper])
    }

    /// Begins at the root of several layers, the topmost first.
    pub fn through(layers: Vec<&'u Upper>) -> Self {
        Walk {
            layers,
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
                Some((name, dir)) => return self.entry(&name.bytes, dir).map(Some),
                None => self.frames.pop(),
            };
        }
        Ok(None)
    }

    fn root(&mut self) -> Result<Entry> {
        let path = EntryPath::default();
        let mut dirs = Vec::new();
        for (layer, upper) in self.layers.iter().enumerate() {
            let fd = reopen_dir(upper.dir()).context(|| self.at(layer, &path, "open"))?;
            let dir = self.layer_dir(fd, layer, &path)?;
            let hides = dir.marks.opacity == Opacity::Opaque;
            dirs.push(dir);
            if hides {
                break;
            }
        }
        self.directory(dirs, path, false)
    }

    /// The entry called `name` in the innermost directory, as its part number `part` has it.
    fn entry(&mut self, name: &[u8], part: usize) -> Result<Entry> {
        let frame = self.frames.last().expect("a name is read in a directory");
        let path = frame.path.join(name);
        let (dir, layer) = (frame.dirs[part].fd.as_fd(), frame.dirs[part].layer);
        let stat = stat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .context(|| self.at(layer, &path, "look at"))?;
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
                let (dirs, hides) = self.parts_of(name, part, &path)?;
                return self.directory(dirs, path, hides);
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
            let marks = self.marks(Holder::Named(dir, name), layer, &path)?;
            let meta = meta(&stat, marks.xattrs);
            return Ok(Entry { path, kind, meta });
        }
        let kind = match file_type {
            FileType::RegularFile => return self.regular(name, part, path, &stat),
            FileType::Symlink => Kind::Symlink {
                target: rustix::fs::readlinkat(dir, name, Vec::new())
                    .context(|| self.at(layer, &path, "read the link"))?
                    .into_bytes(),
            },
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice => Kind::CharDevice(device),
            FileType::BlockDevice => Kind::BlockDevice(device),
            _ => return Err(obstacle(&path, "it is of an unknown type")),
        };
        let marks = self.marks(Holder::Named(dir, name), layer, &path)?;
        let meta = meta(&stat, marks.xattrs);
        self.remember(&stat, &path);
        Ok(Entry { path, kind, meta })
    }

    /// The directory `name` in all layers in which it shows, from part number `part` of the
    /// innermost one on; and whether what is not one hides the layers from there down.
    fn parts_of(
        &self,
        name: &[u8],
        part: usize,
        path: &EntryPath,
    ) -> Result<(Vec<LayerDir>, bool)> {
        let frame = self.frames.last().expect("a directory is read in another");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME;
        let mut dirs = Vec::new();
        for outer in &frame.dirs[part..] {
            let seen = match stat(outer.fd.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(rustix::io::Errno::NOENT) => continue,
                seen => seen.context(|| self.at(outer.layer, path, "look at"))?,
            };
            if FileType::from_raw_mode(seen.stx_mode.into()) != FileType::Directory {
                return Ok((dirs, true));
            }
            let fd = open_name(outer.fd.as_fd(), name, flags)
                .context(|| self.at(outer.layer, path, "open"))?;
            let dir = self.layer_dir(fd, outer.layer, path)?;
            let hides = dir.marks.opacity == Opacity::Opaque;
            dirs.push(dir);
            if hides {
                break;
            }
        }
        Ok((dirs, false))
    }

    fn layer_dir(&self, fd: OwnedFd, layer: usize, path: &EntryPath) -> Result<LayerDir> {
        let stat = stat(fd.as_fd(), b"", AtFlags::EMPTY_PATH)
            .context(|| self.at(layer, path, "look at"))?;
        let marks = self.marks(Holder::Open(fd.as_fd()), layer, path)?;
        Ok(LayerDir {
            fd,
            layer,
            stat,
            marks,
        })
    }

    /// Enters a directory; it is as its topmost part is.
    fn directory(
        &mut self,
        mut dirs: Vec<LayerDir>,
        path: EntryPath,
        hides: bool,
    ) -> Result<Entry> {
        if self.frames.len() > limits::DEPTH {
            return Err(obstacle(&path, "it is too many directories deep"));
        }
        let mut names = Vec::new();
        for (part, dir) in dirs.iter().enumerate() {
            let listed = list(dir.fd.as_fd()).context(|| self.at(dir.layer, &path, "list"))?;
            names.extend(listed.into_iter().map(|name| (name, part)));
        }
        // What several have counts as the topmost has it.
        names.sort_unstable_by(|(a, x), (b, y)| a.bytes.cmp(&b.bytes).then(x.cmp(y)));
        names.dedup_by(|(a, _), (b, _)| a.bytes == b.bytes);
        let opaque = |dir: &LayerDir| dir.marks.opacity == Opacity::Opaque;
        if hides || dirs.iter().any(opaque) {
            self.opaque = Some(path.clone());
        }
        let Some(top) = dirs.first_mut() else {
            return Err(Error::new(ErrorKind::Internal, "a directory in no layer"));
        };
        let entry = Entry {
            path: path.clone(),
            kind: Kind::Directory,
            meta: meta(&top.stat, std::mem::take(&mut top.marks.xattrs)),
        };
        self.frames.push(Frame {
            dirs,
            path,
            names: names.into_iter(),
        });
        Ok(entry)
    }

    fn regular(
        &mut self,
        name: &[u8],
        part: usize,
        path: EntryPath,
        seen: &Statx,
    ) -> Result<Entry> {
        let frame = self.frames.last().expect("a file is read in a directory");
        let dir = &frame.dirs[part];
        let flags = OFlags::RDONLY | OFlags::NOATIME;
        let file =
            open_name(dir.fd.as_fd(), name, flags).context(|| self.at(dir.layer, &path, "open"))?;
        let stat = stat(file.as_fd(), b"", AtFlags::EMPTY_PATH)
            .context(|| self.at(dir.layer, &path, "look at"))?;
        if identity(&stat) != identity(seen) {
            return Err(obstacle(&path, "it was replaced while it was read"));
        }
        let marks = self.marks(Holder::Open(file.as_fd()), dir.layer, &path)?;
        if marks.whiteout {
            let holds_whiteouts = dir.marks.opacity == Opacity::HoldsWhiteouts;
            return match holds_whiteouts && stat.stx_size == 0 {
                true => Ok(Entry::mark(path, Kind::Whiteout)),
                false => Err(obstacle(
                    &path,
                    "overlayfs marked it as a whiteout, but it is none",
                )),
            };
        }
        let segments = holes::find(file.as_fd(), stat.stx_size)
            .context(|| self.at(dir.layer, &path, "look for holes in"))?;
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

    fn marks(&self, holder: Holder<'_>, layer: usize, path: &EntryPath) -> Result<Marks> {
        let xattrs =
            xattrs::read(holder).context(|| self.at(layer, path, "read the attributes of"))?;
        self.layers[layer].layering().marks(xattrs, path)
    }

    fn remember(&mut self, stat: &Statx, path: &EntryPath) {
        if stat.stx_nlink > 1 {
            self.first_names.insert(identity(stat), path.clone());
        }
    }

    fn at(&self, layer: usize, path: &EntryPath, doing: &str) -> String {
        format!("{doing} {path} in {}", self.layers[layer].path().display())
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
