//! The only place where `unsafe` is allowed: system calls that no crate wraps.
#![allow(unsafe_code)]
#![warn(clippy::undocumented_unsafe_blocks)]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

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

/// What a child does between fork and exec, beside what [`Command`] knows.
#[derive(Debug, Default)]
pub struct ChildSetup {
    /// Gets SIGKILL when the thread that spawned it ends.
    pub dies_with_parent: bool,
    /// Leads a session of its own: no terminal's ^C reaches it.
    pub new_session: bool,
    /// Open `cgroup.procs` files to enter.
    pub cgroup_procs: Vec<OwnedFd>,
    /// Makes the cgroups entered the root of a cgroup namespace.
    pub new_cgroup_namespace: bool,
}

/// Has `command`'s child do what `setup` says before it executes.
pub fn set_up_child(command: &mut Command, setup: ChildSetup) {
    let parent = rustix::process::getpid();
    let hook = move || set_up_this_child(&setup, parent).map_err(std::io::Error::from);
    // SAFETY: the hook only makes system calls; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(hook) };
}

fn set_up_this_child(setup: &ChildSetup, parent: rustix::process::Pid) -> rustix::io::Result<()> {
    for procs in &setup.cgroup_procs {
        rustix::io::write(procs, b"0")?;
    }
    if setup.new_cgroup_namespace {
        let flags = rustix::thread::UnshareFlags::NEWCGROUP;
        // SAFETY: a cgroup namespace shares no descriptors and no memory.
        unsafe { rustix::thread::unshare_unsafe(flags)? };
    }
    if setup.new_session {
        rustix::process::setsid()?;
    }
    if setup.dies_with_parent {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        if rustix::process::getppid() != Some(parent) {
            return Err(rustix::io::Errno::SRCH); // It ended before the line above.
        }
    }
    Ok(())
}
