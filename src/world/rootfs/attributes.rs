//! Gives what is in a layer its owner, mode, extended attributes and time.
//!
//! The order matters: a change of owner clears setuid and file capabilities,
//! so those come after it; an ACL says the mode's group bits once more, so it
//! comes after the mode; and the time comes last.

use super::entry::Meta;
use super::overlay::Layering;
use super::xattrs::{self, Holder};
use crate::Result;
use crate::error::IoContext;
use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, Gid, Mode, RawMode, Timespec, Timestamps, Uid};

/// Something open: a file or a directory.
pub(super) fn set_open(fd: BorrowedFd<'_>, meta: &Meta) -> Result<()> {
    let (uid, gid) = owner(meta);
    rustix::fs::fchown(fd, uid, gid).context(|| "set the owner")?;
    rustix::fs::fchmod(fd, mode(meta)).context(|| "set the mode")?;
    set_xattrs(Holder::Open(fd), meta)?;
    rustix::fs::futimens(fd, &times(meta)).context(|| "set the time")
}

/// A symlink, which has no mode.
pub(super) fn set_symlink(dir: BorrowedFd<'_>, name: &[u8], meta: &Meta) -> Result<()> {
    let (uid, gid) = owner(meta);
    let here = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(dir, name, uid, gid, here).context(|| "set the owner")?;
    set_xattrs(Holder::Named(dir, name), meta)?;
    rustix::fs::utimensat(dir, name, &times(meta), here).context(|| "set the time")
}

/// A node that must not be opened. It was just made under this name, which no
/// one else can reach, so it is no link.
pub(super) fn set_node(dir: BorrowedFd<'_>, name: &[u8], meta: &Meta) -> Result<()> {
    let (uid, gid) = owner(meta);
    let here = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(dir, name, uid, gid, here).context(|| "set the owner")?;
    rustix::fs::chmodat(dir, name, mode(meta), AtFlags::empty()).context(|| "set the mode")?;
    set_xattrs(Holder::Named(dir, name), meta)?;
    rustix::fs::utimensat(dir, name, &times(meta), here).context(|| "set the time")
}

/// Removes all attributes of something open but those that the host keeps:
/// the security label and, at the layer's root, what ties it to the layers
/// below.
pub(super) fn strip(fd: BorrowedFd<'_>, layering: Layering, is_root: bool) -> Result<()> {
    for (name, _) in xattrs::read(Holder::Open(fd)).context(|| "read the attributes")? {
        let kept = match layering.private_name(&name) {
            Some(b"origin" | b"uuid" | b"impure") => is_root,
            Some(_) => false,
            None => name == b"security.selinux",
        };
        if !kept {
            xattrs::remove(fd, &name)
                .context(|| format!("remove the attribute {}", name.escape_ascii()))?;
        }
    }
    Ok(())
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

fn mode(meta: &Meta) -> Mode {
    Mode::from_raw_mode(meta.mode as RawMode)
}

fn times(meta: &Meta) -> Timestamps {
    // The kernel's UTIME_OMIT: leave the time of last access alone.
    const OMIT: i64 = 0x3fff_fffe;
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: OMIT,
        },
        last_modification: Timespec {
            tv_sec: meta.mtime.seconds,
            tv_nsec: meta.mtime.nanos.into(),
        },
    }
}
