//! Files that processes hold open, over a layer that others share.
//!
//! Whoever opens a file of a lower layer for reading keeps that file, also when it is written
//! to later: overlayfs then makes a copy, which only those see that open it afterwards. In
//! the container that the world was made of, reader and writer had one file. So the files
//! that somebody holds open are brought up before anybody opens them again.

use super::upper::{Upper, reopen_dir};
use crate::Result;
use crate::error::IoContext;
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};
use rustix::io::Errno;
use std::path::Path;

const INSIDE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Brings up each of `paths` (absolute in the container, without links) that is a regular
/// file of the layer `shared`. `rootfs` is where the overlay is mounted. Returns how many.
pub fn bring_up<'a>(
    shared: &Upper,
    rootfs: &Path,
    paths: impl IntoIterator<Item = &'a [u8]>,
) -> Result<usize> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mounted = rustix::fs::open(rootfs, flags, Mode::empty())
        .context(|| format!("open {}", rootfs.display()))?;
    let layer = reopen_dir(shared.dir()).context(|| format!("open {}", shared.path().display()))?;
    let mut count = 0;
    for path in paths {
        let Some(path) = path.strip_prefix(b"/").filter(|path| !path.is_empty()) else {
            continue;
        };
        let seen = statx(
            layer.as_fd(),
            path,
            AtFlags::SYMLINK_NOFOLLOW,
            StatxFlags::TYPE,
        );
        let is_file = seen.is_ok_and(|seen| {
            FileType::from_raw_mode(seen.stx_mode.into()) == FileType::RegularFile
        });
        if !is_file {
            continue;
        }
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match openat2(&mounted, path, flags, Mode::empty(), INSIDE) {
            Ok(_) => count += 1,
            // Somewhere on the way is a link or a mount: it is another file.
            Err(Errno::LOOP | Errno::XDEV | Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => {
                let path = path.escape_ascii();
                return Err(error).context(|| format!("bring up /{path} for those who hold it"));
            }
        }
    }
    Ok(count)
}
