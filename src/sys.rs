//! The only place where `unsafe` is allowed: system calls that no crate wraps.
#![allow(unsafe_code)]
#![warn(clippy::undocumented_unsafe_blocks)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

pub mod uffd;

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

/// Gives SIGPIPE its usual effect back, which Rust's runtime took from it and
/// which a program executed by this process would go without as well.
pub fn restore_sigpipe() {
    // SAFETY: the default action is no handler: nothing of ours runs on the signal.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Takes the pages of an executable mapping of a file, at `start` and `length` bytes long as
/// `/proc/self/maps` has them, out of memory until they are touched again.
pub fn unmap_clean_pages(start: usize, length: usize) -> rustix::io::Result<()> {
    let pages = std::ptr::with_exposed_provenance_mut(start);
    // SAFETY: such a mapping is private and never writable, so all that is taken away is what
    // the kernel reads from the file again at the next touch. Bounds that are no mapping's are
    // an error, or the pages of another mapping; so callers read them from /proc/self/maps.
    unsafe { rustix::mm::madvise(pages, length, rustix::mm::Advice::LinuxDontNeed) }
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
    /// Lives in a user namespace of its own, with no ids mapped yet.
    pub new_user_namespace: bool,
    /// Leads a session of its own: no terminal's ^C reaches it.
    pub new_session: bool,
    /// Open `cgroup.procs` files to enter.
    pub cgroup_procs: Vec<OwnedFd>,
    /// Makes the cgroups entered the root of a cgroup namespace.
    pub new_cgroup_namespace: bool,
    /// A network namespace to enter.
    pub network: Option<OwnedFd>,
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
        unshare(rustix::thread::UnshareFlags::NEWCGROUP)?;
    }
    if let Some(network) = &setup.network {
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(network.as_fd(), kind)?;
    }
    if setup.new_user_namespace {
        unshare(rustix::thread::UnshareFlags::NEWUSER)?;
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

/// One instruction of a BPF program (`struct bpf_insn`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BpfInstruction {
    /// What to do.
    pub code: u8,
    /// Source register in the high four bits, destination in the low four.
    pub registers: u8,
    /// A jump's distance, or a load's displacement.
    pub offset: i16,
    /// An immediate value.
    pub value: i32,
}

/// Commands, a program type and an attach type of `linux/bpf.h`.
mod bpf {
    pub const PROG_LOAD: i32 = 5;
    pub const PROG_ATTACH: i32 = 8;
    pub const PROG_DETACH: i32 = 9;
    pub const PROG_GET_FD_BY_ID: i32 = 13;
    pub const PROG_QUERY: i32 = 16;
    pub const TYPE_CGROUP_DEVICE: u32 = 15;
    pub const CGROUP_DEVICE: u32 = 6;
    pub const ALLOW_MULTI: u32 = 2;
}

/// The bytes of `union bpf_attr` that the commands here read.
type BpfAttributes = [u64; 16];

/// Two 32-bit fields of the attributes, in the order of their addresses.
fn pair(first: u32, second: u32) -> u64 {
    let (first, second) = (first.to_ne_bytes(), second.to_ne_bytes());
    let mut both = [0; 8];
    both[..4].copy_from_slice(&first);
    both[4..].copy_from_slice(&second);
    u64::from_ne_bytes(both)
}

fn raw(fd: impl AsFd) -> u32 {
    // A borrowed descriptor is never negative.
    fd.as_fd().as_raw_fd() as u32
}

/// # Safety
/// Every pointer in `attributes` must be valid for what `command` does with it.
unsafe fn bpf_call(command: i32, attributes: &mut BpfAttributes) -> io::Result<i32> {
    let size = std::mem::size_of::<BpfAttributes>();
    // SAFETY: the kernel reads and writes at most `size` bytes of `attributes`;
    // the pointers in it are the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size) };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Loads a program that decides on the device accesses of a cgroup.
pub fn bpf_load_device_program(program: &[BpfInstruction]) -> io::Result<OwnedFd> {
    let mut attributes: BpfAttributes = [0; 16];
    attributes[0] = pair(bpf::TYPE_CGROUP_DEVICE, program.len() as u32);
    attributes[1] = program.as_ptr() as u64;
    attributes[2] = c"Apache-2.0".as_ptr() as u64;
    // SAFETY: the instructions and the licence's name outlive the call; their
    // number is the slice's. The result is a new descriptor, close-on-exec.
    unsafe {
        Ok(OwnedFd::from_raw_fd(bpf_call(
            bpf::PROG_LOAD,
            &mut attributes,
        )?))
    }
}

/// Puts a loaded program on a cgroup, beside those that are there.
pub fn bpf_attach_device_program(cgroup: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let mut attributes: BpfAttributes = [0; 16];
    attributes[0] = pair(raw(cgroup), raw(program));
    attributes[1] = pair(bpf::CGROUP_DEVICE, bpf::ALLOW_MULTI);
    // SAFETY: this command reads no pointers.
    unsafe { bpf_call(bpf::PROG_ATTACH, &mut attributes) }.map(|_| ())
}

/// Takes a program off a cgroup.
pub fn bpf_detach_device_program(cgroup: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let mut attributes: BpfAttributes = [0; 16];
    attributes[0] = pair(raw(cgroup), raw(program));
    attributes[1] = pair(bpf::CGROUP_DEVICE, 0);
    // SAFETY: this command reads no pointers.
    unsafe { bpf_call(bpf::PROG_DETACH, &mut attributes) }.map(|_| ())
}

/// The device programs directly on a cgroup. A cgroup takes at most 64.
pub fn bpf_device_programs(cgroup: impl AsFd) -> io::Result<Vec<OwnedFd>> {
    let mut ids = [0_u32; 64];
    let mut attributes: BpfAttributes = [0; 16];
    attributes[0] = pair(raw(cgroup), bpf::CGROUP_DEVICE);
    attributes[2] = ids.as_mut_ptr() as u64;
    attributes[3] = pair(ids.len() as u32, 0);
    // SAFETY: the kernel writes at most `ids.len()` numbers to `ids`.
    unsafe { bpf_call(bpf::PROG_QUERY, &mut attributes) }?;
    // The first half of the pair now says how many there are.
    let count = (0..=ids.len()).rfind(|n| attributes[3] == pair(*n as u32, 0));
    ids[..count.unwrap_or(0)]
        .iter()
        .map(|id| {
            let mut attributes: BpfAttributes = [0; 16];
            attributes[0] = pair(*id, 0);
            // SAFETY: this command reads no pointers; the result is a new
            // descriptor, close-on-exec.
            unsafe {
                let fd = bpf_call(bpf::PROG_GET_FD_BY_ID, &mut attributes)?;
                Ok(OwnedFd::from_raw_fd(fd))
            }
        })
        .collect()
}

/// unshare(2) for the calling thread, of anything but its descriptors.
pub fn unshare(flags: rustix::thread::UnshareFlags) -> rustix::io::Result<()> {
    let flags = flags.difference(rustix::thread::UnshareFlags::FILES);
    // SAFETY: the table of descriptors stays shared, which is all that can go wrong.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// ptrace(2). Every request about a task comes from the thread that seized it.
pub mod trace {
    use std::io;

    /// Registers and the like, as the kernel lays them out.
    pub type Registers = Vec<u8>;

    /// The note type of the general registers.
    pub const GENERAL: i32 = 1;
    /// The note type of the registers for floating point and vectors.
    #[cfg(target_arch = "x86_64")]
    pub const EXTENDED: i32 = 0x202;
    /// The note type of the registers for floating point and vectors.
    #[cfg(not(target_arch = "x86_64"))]
    pub const EXTENDED: i32 = 2;

    /// More bytes than any set of registers has.
    const MAX_REGISTERS: usize = 16 << 10;

    /// A change of a task that [`wait`] tells of.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Change {
        /// It ended; the status as wait(2) gives it.
        Ended(i32),
        /// It stopped: a signal, and the event above it if there is one.
        Stopped {
            /// The signal's number; with 0x80 at a system call.
            signal: i32,
            /// `PTRACE_EVENT_…`, or 0.
            event: i32,
        },
    }

    fn request(kind: libc::c_uint, pid: i32, address: usize, data: usize) -> io::Result<()> {
        // SAFETY: the requests made here either take no pointers, or pointers to
        // memory of the given size that outlives the call.
        match unsafe { libc::ptrace(kind, pid, address, data) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Begins to trace a task, which runs on. `options` are `PTRACE_O_…`.
    pub fn seize(pid: i32, options: i32) -> io::Result<()> {
        request(libc::PTRACE_SEIZE, pid, 0, options as usize)
    }

    /// Has a traced task stop.
    pub fn interrupt(pid: i32) -> io::Result<()> {
        request(libc::PTRACE_INTERRUPT, pid, 0, 0)
    }

    /// Lets a stopped task run, with a signal or 0.
    pub fn resume(pid: i32, signal: i32) -> io::Result<()> {
        request(libc::PTRACE_CONT, pid, 0, signal as usize)
    }

    /// Leaves a task in its stop that a stop signal made.
    pub fn listen(pid: i32) -> io::Result<()> {
        request(libc::PTRACE_LISTEN, pid, 0, 0)
    }

    /// Lets a stopped task run to the next beginning or end of a system call.
    pub fn resume_to_call(pid: i32) -> io::Result<()> {
        request(libc::PTRACE_SYSCALL, pid, 0, 0)
    }

    /// Ends the tracing of a stopped task, which runs on with a signal or 0.
    pub fn detach(pid: i32, signal: i32) -> io::Result<()> {
        request(libc::PTRACE_DETACH, pid, 0, signal as usize)
    }

    /// The status with which a task at `PTRACE_EVENT_EXIT` is ending.
    pub fn exit_status(pid: i32) -> io::Result<i32> {
        let mut message: libc::c_ulong = 0;
        request(libc::PTRACE_GETEVENTMSG, pid, 0, &raw mut message as usize)?;
        Ok(message as i32)
    }

    /// A stopped task's registers of one kind.
    pub fn registers(pid: i32, kind: i32) -> io::Result<Registers> {
        let mut bytes = vec![0u8; MAX_REGISTERS];
        let mut slice = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        let slice_at = &raw mut slice as usize;
        request(libc::PTRACE_GETREGSET, pid, kind as usize, slice_at)?;
        bytes.truncate(slice.iov_len);
        Ok(bytes)
    }

    /// Gives a stopped task registers of one kind.
    pub fn set_registers(pid: i32, kind: i32, registers: &[u8]) -> io::Result<()> {
        let slice = libc::iovec {
            iov_base: registers.as_ptr().cast_mut().cast(),
            iov_len: registers.len(),
        };
        let slice_at = &raw const slice as usize;
        request(libc::PTRACE_SETREGSET, pid, kind as usize, slice_at)
    }

    /// A stopped task's blocked signals.
    pub fn signal_mask(pid: i32) -> io::Result<u64> {
        let mut mask = 0u64;
        let mask_at = &raw mut mask as usize;
        request(libc::PTRACE_GETSIGMASK, pid, size_of::<u64>(), mask_at)?;
        Ok(mask)
    }

    /// Sets a stopped task's blocked signals.
    pub fn set_signal_mask(pid: i32, mask: u64) -> io::Result<()> {
        let mask_at = &raw const mask as usize;
        request(libc::PTRACE_SETSIGMASK, pid, size_of::<u64>(), mask_at)
    }

    /// Waits for a child or a traced task; `None` when nothing has changed and
    /// it should not block.
    pub fn wait(pid: i32, block: bool) -> io::Result<Option<Change>> {
        let flags = libc::__WALL | if block { 0 } else { libc::WNOHANG };
        let mut status = 0;
        loop {
            // SAFETY: `status` is a valid place for the result.
            match unsafe { libc::waitpid(pid, &raw mut status, flags) } {
                0 => return Ok(None),
                -1 => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
                _ => return Ok(Some(change(status))),
            }
        }
    }

    fn change(status: i32) -> Change {
        match libc::WIFSTOPPED(status) {
            true => Change::Stopped {
                signal: libc::WSTOPSIG(status),
                event: status >> 16,
            },
            false => Change::Ended(status),
        }
    }
}
