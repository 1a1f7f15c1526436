//! Reading and setting extended attributes, also of what cannot be opened.

use super::entry::Xattr;
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr};
use rustix::fs::{lgetxattr, llistxattr, lsetxattr};
use rustix::io::{Errno, Result};

/// Whose attributes: something open, or a name in an open directory.
#[derive(Debug, Clone, Copy)]
pub(super) enum Holder<'a> {
    Open(BorrowedFd<'a>),
    /// Reached through `/proc/self/fd`, where only the last name, never a
    /// link, is resolved.
    Named(BorrowedFd<'a>, &'a [u8]),
}

/// The path of a name in an open directory that system calls without a
/// directory argument can take.
pub(super) fn proc_path(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

/// All attributes of `holder`, sorted by name.
pub(super) fn read(holder: Holder<'_>) -> Result<Vec<Xattr>> {
    let mut small = [0u8; 1024];
    let path = match holder {
        Holder::Open(_) => Vec::new(),
        Holder::Named(dir, name) => proc_path(dir, name),
    };
    let list = |buffer: &mut [u8]| match holder {
        Holder::Open(fd) => flistxattr(fd, buffer),
        Holder::Named(..) => llistxattr(&path[..], buffer),
    };
    let names = match list(&mut small) {
        Ok(length) => small[..length].to_vec(),
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(Errno::RANGE) => grown(list)?,
        Err(error) => return Err(error),
    };
    let mut xattrs = Vec::new();
    for name in names.split(|&byte| byte == 0).filter(|n| !n.is_empty()) {
        let value = grown(|buffer: &mut [u8]| match holder {
            Holder::Open(fd) => fgetxattr(fd, name, buffer),
            Holder::Named(..) => lgetxattr(&path[..], name, buffer),
        });
        match value {
            Ok(value) => xattrs.push((name.to_vec(), value)),
            // Listed, but not for us to read: the kernel makes it up.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    xattrs.sort();
    Ok(xattrs)
}

/// Calls `read` with larger and larger buffers, up to the kernel's limit.
fn grown(read: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 64 << 10 => {
                let larger = buffer.len() * 4;
                buffer.resize(larger, 0);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Sets one attribute.
pub(super) fn set(holder: Holder<'_>, name: &[u8], value: &[u8]) -> Result<()> {
    match holder {
        Holder::Open(fd) => fsetxattr(fd, name, value, XattrFlags::empty()),
        Holder::Named(dir, entry) => {
            lsetxattr(proc_path(dir, entry), name, value, XattrFlags::empty())
        }
    }
}

/// Removes one attribute of something open.
pub(super) fn remove(fd: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    fremovexattr(fd, name)
}
