//! userfaultfd(2): memory that another process fills when it is touched.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What the kernel tells of an address space.
#[derive(Debug)]
pub enum Event {
    /// A thread waits for the page at this address.
    Fault(u64),
    /// The task forked: the child's memory is as the parent's at that moment.
    Fork(OwnedFd),
    /// Memory moved; what comes from `from` on is now at `to`. Lengths in bytes.
    Remap {
        /// Its old address.
        from: u64,
        /// Its new one.
        to: u64,
        /// How many bytes.
        length: u64,
    },
    /// The contents of these addresses are gone; those that are still mapped are zero.
    Remove {
        /// The first address.
        start: u64,
        /// The address after the last.
        end: u64,
    },
}

// Numbers of linux/userfaultfd.h, the same on all processors that Linux runs this code on.
const REGISTER: u64 = 0xc020_aa00;
const WAKE: u64 = 0x8010_aa02;
const COPY: u64 = 0xc028_aa03;
const ZEROPAGE: u64 = 0xc020_aa04;
const CONTINUE: u64 = 0xc020_aa07;
const API: u64 = 0xc018_aa3f;
const EVENT_FAULT: u8 = 0x12;
const EVENT_FORK: u8 = 0x13;
const EVENT_REMAP: u8 = 0x14;
const EVENT_REMOVE: u8 = 0x15;
const EVENT_UNMAP: u8 = 0x16;
const VERSION: u64 = 0xaa;
/// Events for fork, remap, remove and unmap.
const FEATURES: u64 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 6;
const REGISTER_MISSING: u64 = 1;

/// Messages that one call reads.
const MESSAGES: usize = 16;
/// `struct uffd_msg`: the event in the first byte, its arguments from byte 8 on.
type Message = [u64; 4];

/// Reads what has happened, and waits for nothing: appends to `events`, and tells whether
/// there was anything. Whoever caused an event other than a fault goes on with this call.
pub fn read(fd: BorrowedFd<'_>, events: &mut Vec<Event>) -> io::Result<bool> {
    let mut messages: [Message; MESSAGES] = [[0; 4]; MESSAGES];
    // SAFETY: the kernel writes at most the array's size; every bit pattern is a message.
    let count = unsafe {
        let size = size_of::<[Message; MESSAGES]>();
        libc::read(fd.as_raw_fd(), messages.as_mut_ptr().cast(), size)
    };
    let Ok(count) = usize::try_from(count) else {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            // Without a descriptor to spare a fork waits until there is one.
            Some(libc::EAGAIN | libc::EINTR | libc::EMFILE | libc::ENFILE) => Ok(false),
            _ => Err(error),
        };
    };
    for message in &messages[..count / size_of::<Message>()] {
        events.extend(event(message));
    }
    Ok(count > 0)
}

fn event([kind, a, b, c]: &Message) -> Option<Event> {
    Some(match kind.to_ne_bytes()[0] {
        // The flags come before the address.
        EVENT_FAULT => Event::Fault(*b),
        EVENT_FORK => {
            let [d0, d1, d2, d3, ..] = a.to_ne_bytes();
            let fd = i32::from_ne_bytes([d0, d1, d2, d3]);
            // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
            Event::Fork(unsafe { OwnedFd::from_raw_fd(fd) })
        }
        EVENT_REMAP => Event::Remap {
            from: *a,
            to: *b,
            length: *c,
        },
        EVENT_REMOVE | EVENT_UNMAP => Event::Remove { start: *a, end: *b },
        _ => return None,
    })
}

/// How far a filling came.
#[derive(Debug)]
pub struct Filled {
    /// Bytes that are filled now.
    pub bytes: u64,
    /// Why it stopped there.
    pub stopped: Option<rustix::io::Errno>,
}

/// `request`, whose last word tells how many bytes were filled, or a negative error.
fn fill<const N: usize>(fd: BorrowedFd<'_>, number: u64, mut request: [u64; N]) -> Filled {
    // SAFETY: `number` is of a request of N words. What it makes the kernel read is a slice that
    // its caller holds; what it makes the kernel write is another process's missing memory.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), number, request.as_mut_ptr()) };
    let error = io::Error::last_os_error();
    let stopped = (result != 0)
        .then(|| rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO));
    Filled {
        bytes: u64::try_from(request[N - 1] as i64).unwrap_or(0),
        stopped,
    }
}

/// Fills missing pages at `address` with `pages`, whole ones, and wakes who waits for them.
/// Stops at the first page that is not missing.
pub fn copy(fd: BorrowedFd<'_>, address: u64, pages: &[u8]) -> Filled {
    let request = [address, pages.as_ptr() as u64, pages.len() as u64, 0, 0];
    fill(fd, COPY, request)
}

/// As [`copy`], with zeros; such pages take no memory before they are written to.
pub fn zero(fd: BorrowedFd<'_>, address: u64, length: u64) -> Filled {
    fill(fd, ZEROPAGE, [address, length, 0, 0])
}

/// Lets whoever waits for a page of this range try again.
pub fn wake(fd: BorrowedFd<'_>, address: u64, length: u64) -> io::Result<()> {
    let mut range = [address, length];
    // SAFETY: the request is two words, which the kernel reads.
    match unsafe { libc::ioctl(fd.as_raw_fd(), WAKE, range.as_mut_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether the address space is still there: whether a task lives in it.
pub fn is_alive(fd: BorrowedFd<'_>) -> bool {
    // A request that finds nothing to do in private memory, wherever it points.
    let asked = fill(fd, CONTINUE, [1 << 20, 4096, 0, 0]);
    asked.stopped != Some(rustix::io::Errno::SRCH)
}

/// A descriptor like that which CRIU makes for a task it restores, for our own memory.
pub fn create() -> io::Result<OwnedFd> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: takes no pointers; a result that is not negative is a new descriptor.
    let fd = unsafe {
        let fd = libc::syscall(libc::SYS_userfaultfd, flags);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd as i32)
    };
    let mut api = [VERSION, FEATURES, 0];
    // SAFETY: the request is three words, which the kernel reads and writes.
    match unsafe { libc::ioctl(fd.as_raw_fd(), API, api.as_mut_ptr()) } {
        0 => Ok(fd),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has missing pages of our own memory wait for `fd`.
pub fn register(fd: impl AsFd, address: u64, length: u64) -> io::Result<()> {
    let mut request = [address, length, REGISTER_MISSING, 0];
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the request is four words; memory that is touched later waits, as others' does.
    match unsafe { libc::ioctl(fd, REGISTER, request.as_mut_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
