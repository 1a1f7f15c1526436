//! Makes a layer on disk exactly what an archive says.
//!
//! Both are in the same order, so one pass does: what is on disk only is
//! removed, what is in the archive only is made. A file that is there already
//! with the same bytes stays, and gets the archive's owner, mode, attributes
//! and time; so a layer that containerd brought back, whose times are cut to
//! seconds, costs reading instead of writing. A file with further names is
//! always made anew: one of them may be outside of the layer.

use super::attributes::{set_node, set_open, set_symlink, strip};
use super::compare;
use super::entry::{Device, Entry, EntryPath, Kind, Meta};
use super::overlay::Layering;
use super::policy::Policy;
use super::reader::{Reader, Totals, verify};
use super::remove::remove;
use super::source::Source;
use super::upper::{Name, Upper, list, open_name, reopen_dir};
use super::walk::{self, Found};
use super::xattrs::{self, Holder};
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use std::cmp::Ordering;
use std::fs::File;
use std::io::{Read, Seek};
use std::iter::Peekable;
use std::os::unix::fs::FileExt;

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
    let mut apply = Apply {
        upper,
        reader: Reader::new(tar)?,
        frames: Vec::new(),
        buffers: compare::buffers(),
    };
    while let Some(entry) = apply.reader.next()? {
        policy.check(&entry, upper.layering())?;
        apply.leave_until(match entry.kind {
            Kind::Opaque => &entry.path.0,
            _ => entry.path.split().0,
        })?;
        let path = entry.path.clone();
        apply
            .entry(entry)
            .map_err(|error| error.within(format!("bring back {path}")))?;
    }
    apply.leave_until_none()?;
    Ok(apply.reader.totals())
}

/// A layer being made.
struct Apply<'u, S> {
    upper: &'u Upper,
    reader: Reader<S>,
    /// The directories being filled, the innermost last. They get their owner,
    /// mode, attributes and time when they are left: nothing in them inherits
    /// anything, and their time is not changed by what is made in them.
    frames: Vec<Frame>,
    buffers: compare::Buffers,
}

struct Frame {
    dir: OwnedFd,
    path: EntryPath,
    meta: Meta,
    opaque: bool,
    /// What was in it before and was not looked at yet, sorted.
    before: Peekable<std::vec::IntoIter<Name>>,
}

impl<S: Source> Apply<'_, S> {
    fn entry(&mut self, entry: Entry) -> Result<()> {
        if entry.path.is_root() && entry.kind == Kind::Directory {
            let dir = reopen_dir(self.upper.dir()).context(|| "open")?;
            return self.enter(dir, entry);
        }
        let frame = self.frames.last_mut().ok_or_else(misplaced)?;
        if entry.kind == Kind::Opaque {
            frame.opaque = true;
            return Ok(());
        }
        let Some(before) = frame.pass_to(entry.path.split().1)? else {
            return self.make(entry);
        };
        let Some(entry) = self.reuse(entry)? else {
            return Ok(());
        };
        remove(self.frame()?.dir.as_fd(), before)?;
        self.make(entry)
    }

    fn frame(&self) -> Result<&Frame> {
        self.frames.last().ok_or_else(misplaced)
    }

    /// Takes what is on disk under the entry's name, if it will do; gives the
    /// entry back if it will not.
    fn reuse(&mut self, entry: Entry) -> Result<Option<Entry>> {
        let frame = self.frame()?;
        let (dir, name) = (frame.dir.as_fd(), entry.path.split().1);
        match (&entry.kind, walk::look(dir, name)?) {
            (Kind::Directory, Found::Directory(inner)) => {
                self.enter(inner, entry)?;
                Ok(None)
            }
            (Kind::Whiteout, Found::Whiteout) => Ok(None),
            (Kind::File { .. }, Found::OnlyName(file, kind, mut meta)) if kind == entry.kind => {
                if !compare::same_content(
                    &mut self.reader,
                    &entry,
                    file.as_fd(),
                    &mut self.buffers,
                )? {
                    self.reader.data_again()?;
                    return Ok(Some(entry));
                }
                meta.xattrs = xattrs::read(Holder::Open(file.as_fd())).context(|| "read")?;
                if meta != entry.meta {
                    strip(file.as_fd(), self.upper.layering(), false)?;
                    set_open(file.as_fd(), &entry.meta)?;
                }
                Ok(None)
            }
            _ => Ok(Some(entry)),
        }
    }

    /// Makes the entry, whose name is free.
    fn make(&mut self, entry: Entry) -> Result<()> {
        let frame = self.frame()?;
        let (dir, name) = (frame.dir.as_fd(), entry.path.split().1);
        match &entry.kind {
            Kind::Directory => {
                rustix::fs::mkdirat(dir, name, Mode::RWXU).context(|| "make the directory")?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let inner = open_name(dir, name, flags).context(|| "open the directory")?;
                return self.enter(inner, entry);
            }
            Kind::File { .. } => return self.file(&entry),
            Kind::Symlink { target } => {
                rustix::fs::symlinkat(&target[..], dir, name).context(|| "make the symlink")?;
                set_symlink(dir, name, &entry.meta)?;
            }
            Kind::Hardlink { target } => link(self.upper.dir(), target, dir, name)?,
            Kind::Whiteout => node(dir, name, FileType::CharacterDevice, NO_DEVICE)?,
            Kind::Fifo => node(dir, name, FileType::Fifo, NO_DEVICE)?,
            Kind::Socket => node(dir, name, FileType::Socket, NO_DEVICE)?,
            Kind::CharDevice(device) => node(dir, name, FileType::CharacterDevice, *device)?,
            Kind::BlockDevice(device) => node(dir, name, FileType::BlockDevice, *device)?,
            Kind::Opaque | Kind::Removed => return Err(misplaced()),
        }
        match entry.kind {
            Kind::Fifo | Kind::Socket | Kind::CharDevice(_) | Kind::BlockDevice(_) => {
                set_node(dir, name, &entry.meta)
            }
            _ => Ok(()),
        }
    }

    fn file(&mut self, entry: &Entry) -> Result<()> {
        let frame = self.frames.last().ok_or_else(misplaced)?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&frame.dir, entry.path.split().1, flags, PRIVATE)
            .context(|| "make the file")?;
        let file = File::from(file);
        if let Kind::File {
            size,
            segments: Some(_),
        } = entry.kind
        {
            file.set_len(size).context(|| "size the file")?;
        }
        self.reader.data(entry, &mut self.buffers.0, |at, bytes| {
            file.write_all_at(bytes, at).context(|| "write the file")?;
            Ok(true)
        })?;
        set_open(file.as_fd(), &entry.meta)
    }

    fn enter(&mut self, dir: OwnedFd, entry: Entry) -> Result<()> {
        strip(dir.as_fd(), self.upper.layering(), entry.path.is_root())?;
        let mut before = list(dir.as_fd()).context(|| "list the directory")?;
        before.sort_unstable_by(|a, b| a.bytes.cmp(&b.bytes));
        self.frames.push(Frame {
            dir,
            path: entry.path,
            meta: entry.meta,
            opaque: false,
            before: before.into_iter().peekable(),
        });
        Ok(())
    }

    /// Finishes directories until the one at `parent`.
    fn leave_until(&mut self, parent: &[u8]) -> Result<()> {
        while self
            .frames
            .last()
            .is_some_and(|frame| frame.path.0 != parent)
        {
            self.leave()?;
        }
        Ok(())
    }

    fn leave_until_none(&mut self) -> Result<()> {
        while !self.frames.is_empty() {
            self.leave()?;
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        let mut frame = self.frames.pop().ok_or_else(misplaced)?;
        frame
            .finish(self.upper.layering())
            .map_err(|error| error.within(format!("bring back {}", frame.path)))
    }
}

impl Frame {
    /// Removes what was here before up to `name`, which the archive goes on
    /// with; what is here under that name itself is returned.
    fn pass_to(&mut self, name: &[u8]) -> Result<Option<Name>> {
        while let Some(next) = self.before.next_if(|next| *next.bytes <= *name) {
            match (*next.bytes).cmp(name) {
                Ordering::Equal => return Ok(Some(next)),
                _ => remove(self.dir.as_fd(), next)?,
            }
        }
        Ok(None)
    }

    fn finish(&mut self, layering: Layering) -> Result<()> {
        for name in self.before.by_ref() {
            remove(self.dir.as_fd(), name)?;
        }
        if let (true, Some(prefix)) = (self.opaque, layering.prefix()) {
            let name = [prefix, b"opaque"].concat();
            xattrs::set(Holder::Open(self.dir.as_fd()), &name, b"y")
                .context(|| "mark the directory opaque")?;
        }
        set_open(self.dir.as_fd(), &self.meta)
    }
}

const NO_DEVICE: Device = Device { major: 0, minor: 0 };

/// The mode of what is not finished.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Only a fault in the order's check could lead here.
fn misplaced() -> Error {
    Error::new(ErrorKind::Internal, "an entry outside every directory")
}

fn node(dir: BorrowedFd<'_>, name: &[u8], file_type: FileType, device: Device) -> Result<()> {
    let number = rustix::fs::makedev(device.major, device.minor);
    rustix::fs::mknodat(dir, name, file_type, PRIVATE, number).context(|| "make the node")
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
