//! Makes a layer on disk exactly what an archive says.

use super::entry::{Device, Entry, EntryPath, Kind, Meta};
use super::overlay::Layering;
use super::policy::Policy;
use super::reader::{Reader, Totals, verify};
use super::upper::{Name, Upper, list, open_name, reopen_dir};
use super::xattrs::{self, Holder};
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RawMode, Timespec, Timestamps, Uid};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::fs::FileExt;

const BUFFER: usize = 1 << 20;

/// Makes `upper` exactly what `tar` says; its root directory stays the same
/// inode. The archive is verified wholly before anything changes. The overlay
/// must not be mounted meanwhile.
///
/// # Errors
/// As [`verify`], with nothing changed. Any later error leaves the layer half
/// made: a container must not run on it.
pub fn bring_back<R: Read + Seek>(
    upper: &Upper,
    mut tar: R,
    policy: &Policy,
    expected: Option<&Totals>,
) -> Result<Totals> {
    verify(&mut tar, upper.layering(), policy, expected)?;
    clear(upper).map_err(|error| error.within(format!("clear {}", upper.path().display())))?;
    let mut reader = Reader::new(tar)?;
    let mut apply = Apply {
        upper,
        frames: Vec::new(),
        buffer: vec![0; BUFFER],
    };
    while let Some(entry) = reader.next()? {
        policy.check(&entry, upper.layering())?;
        apply.leave_until(match entry.kind {
            Kind::Opaque => &entry.path.0,
            _ => entry.path.split().0,
        })?;
        let path = entry.path.clone();
        apply
            .entry(entry, &mut reader)
            .map_err(|error| error.within(format!("bring back {path}")))?;
    }
    apply.leave_all()?;
    Ok(reader.totals())
}

/// Removes all that is in the layer, without following a link or entering
/// another mount, and its root's attributes.
fn clear(upper: &Upper) -> Result<()> {
    let root = reopen_dir(upper.dir()).context(|| "open")?;
    for (name, _) in xattrs::read(Holder::Open(root.as_fd())).context(|| "read attributes")? {
        if !belongs_to_the_host(upper.layering(), &name) {
            xattrs::remove(root.as_fd(), &name)
                .context(|| format!("remove the attribute {}", name.escape_ascii()))?;
        }
    }
    let mut frames = vec![(root, None::<Name>, None::<std::vec::IntoIter<Name>>)];
    while let Some((dir, _, names)) = frames.last_mut() {
        if names.is_none() {
            *names = Some(
                list(dir.as_fd())
                    .context(|| "list a directory")?
                    .into_iter(),
            );
        }
        let Some(name) = names.as_mut().and_then(Iterator::next) else {
            let done = frames.pop();
            if let (Some((_, Some(name), _)), Some((parent, ..))) = (done, frames.last()) {
                remove(parent.as_fd(), &name, AtFlags::REMOVEDIR)?;
            }
            continue;
        };
        if !name.is_dir && remove_file(dir.as_fd(), &name)? {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let inner = open_name(dir.as_fd(), &name.bytes, flags)
            .context(|| format!("open \"{}\"", name.bytes.escape_ascii()))?;
        frames.push((inner, Some(name), None));
    }
    Ok(())
}

/// Whether an attribute of the root says what it is to this host: how the
/// upper is tied to its lower layers, and its security label.
fn belongs_to_the_host(layering: Layering, name: &[u8]) -> bool {
    match layering.private_name(name) {
        Some(private) => matches!(private, b"origin" | b"uuid" | b"impure"),
        None => name == b"security.selinux",
    }
}

/// Removes what is not a directory; `false` if it is one.
fn remove_file(dir: BorrowedFd<'_>, name: &Name) -> Result<bool> {
    match rustix::fs::unlinkat(dir, &*name.bytes, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::ISDIR) => Ok(false),
        Err(error) => Err(error).context(|| format!("remove \"{}\"", name.bytes.escape_ascii())),
    }
}

fn remove(dir: BorrowedFd<'_>, name: &Name, flags: AtFlags) -> Result<()> {
    rustix::fs::unlinkat(dir, &*name.bytes, flags)
        .context(|| format!("remove \"{}\"", name.bytes.escape_ascii()))
}

/// A layer being made.
struct Apply<'u> {
    upper: &'u Upper,
    /// The directories being filled, the innermost last. They get their owner,
    /// mode, attributes and time when they are left: nothing in them inherits
    /// anything, and their time is not changed by what is made in them.
    frames: Vec<Frame>,
    buffer: Vec<u8>,
}

struct Frame {
    dir: OwnedFd,
    path: EntryPath,
    meta: Meta,
    opaque: bool,
}

impl Apply<'_> {
    fn entry<R: Read + Seek>(&mut self, entry: Entry, reader: &mut Reader<R>) -> Result<()> {
        if entry.path.is_root() && entry.kind == Kind::Directory {
            let dir = reopen_dir(self.upper.dir()).context(|| "open")?;
            self.enter(dir, entry);
            return Ok(());
        }
        let frame = self.frames.last_mut().ok_or_else(misplaced)?;
        let dir = frame.dir.as_fd();
        let name = entry.path.split().1;
        let private = Mode::RUSR | Mode::WUSR;
        match &entry.kind {
            Kind::Opaque => frame.opaque = true,
            Kind::Directory => {
                rustix::fs::mkdirat(dir, name, Mode::RWXU).context(|| "make the directory")?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let inner = open_name(dir, name, flags).context(|| "open the directory")?;
                self.enter(inner, entry);
            }
            Kind::File { .. } => return self.file(&entry, reader),
            Kind::Symlink { target } => {
                rustix::fs::symlinkat(&target[..], dir, name).context(|| "make the symlink")?;
                link_meta(dir, name, &entry.meta)?;
            }
            Kind::Hardlink { target } => link(self.upper.dir(), target, dir, name)?,
            Kind::Whiteout => node(
                dir,
                name,
                FileType::CharacterDevice,
                Mode::empty(),
                NO_DEVICE,
            )?,
            Kind::Fifo => {
                node(dir, name, FileType::Fifo, private, NO_DEVICE)?;
                node_meta(dir, name, &entry.meta)?;
            }
            Kind::Socket => {
                node(dir, name, FileType::Socket, private, NO_DEVICE)?;
                node_meta(dir, name, &entry.meta)?;
            }
            Kind::CharDevice(device) => {
                node(dir, name, FileType::CharacterDevice, private, *device)?;
                node_meta(dir, name, &entry.meta)?;
            }
            Kind::BlockDevice(device) => {
                node(dir, name, FileType::BlockDevice, private, *device)?;
                node_meta(dir, name, &entry.meta)?;
            }
        }
        Ok(())
    }

    fn file<R: Read + Seek>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<()> {
        let frame = self.frames.last().ok_or_else(misplaced)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let private = Mode::RUSR | Mode::WUSR;
        let file = rustix::fs::openat(&frame.dir, entry.path.split().1, flags, private)
            .context(|| "make the file")?;
        let file = File::from(file);
        if let Kind::File {
            size,
            segments: Some(_),
        } = entry.kind
        {
            file.set_len(size).context(|| "size the file")?;
        }
        reader.data(entry, &mut self.buffer, |at, bytes| {
            file.write_all_at(bytes, at).context(|| "write the file")
        })?;
        open_meta(file.as_fd(), &entry.meta)
    }

    fn enter(&mut self, dir: OwnedFd, entry: Entry) {
        self.frames.push(Frame {
            dir,
            path: entry.path,
            meta: entry.meta,
            opaque: false,
        });
    }

    /// Finishes directories until the one at `parent`.
    fn leave_until(&mut self, parent: &[u8]) -> Result<()> {
        while let Some(frame) = self.frames.last() {
            if frame.path.0 == parent || self.frames.len() == 1 {
                break;
            }
            self.leave()?;
        }
        Ok(())
    }

    fn leave_all(&mut self) -> Result<()> {
        while !self.frames.is_empty() {
            self.leave()?;
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        let frame = self.frames.pop().ok_or_else(misplaced)?;
        let finish = || {
            if frame.opaque {
                let name = match self.upper.layering() {
                    Layering::Overlay { userxattr: true } => "user.overlay.opaque",
                    _ => "trusted.overlay.opaque",
                };
                xattrs::set(Holder::Open(frame.dir.as_fd()), name.as_bytes(), b"y")
                    .context(|| "mark the directory opaque")?;
            }
            open_meta(frame.dir.as_fd(), &frame.meta)
        };
        finish().map_err(|error: Error| error.within(format!("bring back {}", frame.path)))
    }
}

const NO_DEVICE: Device = Device { major: 0, minor: 0 };

/// Only a fault in the order's check could lead here.
fn misplaced() -> Error {
    Error::new(ErrorKind::Internal, "an entry outside every directory")
}

fn node(
    dir: BorrowedFd<'_>,
    name: &[u8],
    file_type: FileType,
    mode: Mode,
    device: Device,
) -> Result<()> {
    let number = rustix::fs::makedev(device.major, device.minor);
    rustix::fs::mknodat(dir, name, file_type, mode, number).context(|| "make the node")
}

/// Makes one more name for `target`, which is reached from the layer's root
/// one component at a time.
fn link(root: BorrowedFd<'_>, target: &EntryPath, dir: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let at = || format!("make a hardlink to {target}");
    let (parent, target_name) = target.split();
    let mut inner = reopen_dir(root).context(at)?;
    for part in EntryPath(parent.to_vec()).components() {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        inner = open_name(inner.as_fd(), part, flags).context(at)?;
    }
    rustix::fs::linkat(&inner, target_name, dir, name, AtFlags::empty()).context(at)
}

/// Gives something open its owner, mode, attributes and time. A change of
/// owner clears setuid and file capabilities, so those come after it; an ACL
/// says the mode's group bits once more, so it comes after the mode.
fn open_meta(fd: BorrowedFd<'_>, meta: &Meta) -> Result<()> {
    let (uid, gid) = owner(meta);
    rustix::fs::fchown(fd, uid, gid).context(|| "set the owner")?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(meta.mode as RawMode)).context(|| "set the mode")?;
    set_xattrs(Holder::Open(fd), meta)?;
    rustix::fs::futimens(fd, &times(meta)).context(|| "set the time")
}

/// The same for a symlink, which has no mode.
fn link_meta(dir: BorrowedFd<'_>, name: &[u8], meta: &Meta) -> Result<()> {
    let (uid, gid) = owner(meta);
    let here = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(dir, name, uid, gid, here).context(|| "set the owner")?;
    set_xattrs(Holder::Named(dir, name), meta)?;
    rustix::fs::utimensat(dir, name, &times(meta), here).context(|| "set the time")
}

/// The same for a node that must not be opened. It was just made under this
/// name, which no one else can reach, so it is no link.
fn node_meta(dir: BorrowedFd<'_>, name: &[u8], meta: &Meta) -> Result<()> {
    let (uid, gid) = owner(meta);
    let here = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(dir, name, uid, gid, here).context(|| "set the owner")?;
    let mode = Mode::from_raw_mode(meta.mode as RawMode);
    rustix::fs::chmodat(dir, name, mode, AtFlags::empty()).context(|| "set the mode")?;
    set_xattrs(Holder::Named(dir, name), meta)?;
    rustix::fs::utimensat(dir, name, &times(meta), here).context(|| "set the time")
}

fn set_xattrs(holder: Holder<'_>, meta: &Meta) -> Result<()> {
    for (name, value) in &meta.xattrs {
        xattrs::set(holder, name, value)
            .context(|| format!("set the attribute {}", name.escape_ascii()))?;
    }
    Ok(())
}

fn owner(meta: &Meta) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))
}

fn times(meta: &Meta) -> Timestamps {
    // rustix has no name for it: leave the time of last access alone.
    const UTIME_OMIT: i64 = 0x3fff_fffe;
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: meta.mtime.seconds,
            tv_nsec: meta.mtime.nanos.into(),
        },
    }
}
