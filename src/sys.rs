//! The only place where `unsafe` is allowed: system calls that no crate wraps.
#![allow(unsafe_code)]
#![warn(clippy::undocumented_unsafe_blocks)]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd};
use std::os::unix::net::UnixStream;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Takes ownership of a socket that the parent process left at `fd`, and keeps
/// it from being inherited further.
///
/// Fails if `fd` is not open. To be called once, before anything opens a file.
pub fn take_inherited_socket(fd: i32) -> io::Result<UnixStream> {
    // SAFETY: at the start of the process nobody else owns `fd`; if it is not
    // open at all, the next call fails with EBADF and the value is forgotten.
    let socket = unsafe { UnixStream::from_raw_fd(fd) };
    match rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC) {
        Ok(()) => Ok(socket),
        Err(error) => {
            std::mem::forget(socket);
            Err(error.into())
        }
    }
}

/// The signal with this number: 1 to 64, real-time ones included.
pub fn signal(number: i32) -> Option<rustix::process::Signal> {
    if !(1..=64).contains(&number) {
        return None;
    }
    // SAFETY: the kernel takes every number in this range; those that the C
    // library keeps for itself (32, 33) are only sent, never handled, here.
    Some(unsafe { rustix::process::Signal::from_raw_unchecked(number) })
}

/// Lets the running tokio runtime wait until `fd` is readable.
pub fn async_readable(fd: BorrowedFd<'_>) -> io::Result<AsyncFd<BorrowedFd<'_>>> {
    // SAFETY: a BorrowedFd stays open, and stays the same file, as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}
