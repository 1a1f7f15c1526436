//! Takes things out of a layer.

use super::upper::{Name, list, open_name};
use crate::Result;
use crate::error::IoContext;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, OFlags, unlinkat};
use rustix::io::Errno;

/// A directory being emptied, and what it is called in the one before.
struct Frame {
    dir: OwnedFd,
    name: Name,
    inside: std::vec::IntoIter<Name>,
}

/// Removes `name` and all that is in it. No link is followed, and a mount is
/// an error.
pub(super) fn remove(dir: BorrowedFd<'_>, name: Name) -> Result<()> {
    if !name.is_dir && unlinked(dir, &name)? {
        return Ok(());
    }
    let mut frames = vec![enter(dir, name)?];
    while let Some(frame) = frames.last_mut() {
        if let Some(name) = frame.inside.next() {
            if name.is_dir || !unlinked(frame.dir.as_fd(), &name)? {
                let inner = enter(frame.dir.as_fd(), name)?;
                frames.push(inner);
            }
        } else if let Some(done) = frames.pop() {
            let parent = frames.last().map_or(dir, |frame| frame.dir.as_fd());
            unlinkat(parent, &*done.name.bytes, AtFlags::REMOVEDIR)
                .context(|| removing(&done.name))?;
        }
    }
    Ok(())
}

fn enter(dir: BorrowedFd<'_>, name: Name) -> Result<Frame> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let inner = open_name(dir, &name.bytes, flags).context(|| removing(&name))?;
    let inside = list(inner.as_fd()).context(|| removing(&name))?.into_iter();
    Ok(Frame {
        dir: inner,
        name,
        inside,
    })
}

/// Removes what is no directory; `false` if it is one.
fn unlinked(dir: BorrowedFd<'_>, name: &Name) -> Result<bool> {
    match unlinkat(dir, &*name.bytes, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::ISDIR) => Ok(false),
        Err(error) => Err(error).context(|| removing(name)),
    }
}

fn removing(name: &Name) -> String {
    format!("remove \"{}\"", name.bytes.escape_ascii())
}
