//! CRIU's side of a lazy restore: it connects to a socket and sends each task's userfaultfd.
//!
//! The socket is `lazy-pages.socket` in CRIU's work directory (SOCK_STREAM). Per
//! task come an i32, its process id in the images, and one byte that carries the
//! descriptor; a negative id is a zombie, without either. The last number is
//! 0x52535446 (criu/uffd.c). CRIU sends it while the tasks still stand still.

use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::line::Line;
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

/// The socket's name in CRIU's work directory.
pub const SOCKET: &str = "lazy-pages.socket";
/// What ends the list of tasks.
const FINISHED: i32 = 0x5253_5446;

/// Makes the socket in a work directory, before CRIU is started.
pub fn listen(work_dir: &Path) -> Result<UnixListener> {
    let path = work_dir.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(&path),
    }
    .context(|| format!("listen on {}", path.display()))
}

/// Waits for CRIU's connection and passes on all that comes over it, to a sibling's line. Ends
/// without an error, and with the line as it was, when `stop` becomes readable before CRIU
/// connects: a restore that failed. To be run beside the restore.
pub fn forward(listener: &UnixListener, line: &mut Line, stop: BorrowedFd<'_>) -> Result<()> {
    let mut fds = [
        PollFd::new(listener, PollFlags::IN),
        PollFd::new(&stop, PollFlags::IN),
    ];
    rustix::io::retry_on_intr(|| poll(&mut fds, None)).context(|| "wait for CRIU")?;
    if fds[0].revents().is_empty() {
        return Ok(());
    }
    let (mut criu, _) = listener.accept().context(|| "take CRIU's connection")?;
    while let Some((pid, uffd)) = next_task(&mut criu)? {
        line.send_space(pid, uffd)?;
    }
    line.complete()
}

/// Reads the next task from CRIU's connection: its process id in the images, and its
/// userfaultfd. `None` after the last. [`ErrorKind::Criu`] where CRIU ends before that.
pub fn next_task(criu: &mut UnixStream) -> Result<Option<(u32, OwnedFd)>> {
    loop {
        let mut number = [0; 4];
        criu.read_exact(&mut number).map_err(ended)?;
        let number = i32::from_ne_bytes(number);
        if number == FINISHED {
            return Ok(None);
        }
        if let Ok(pid) = u32::try_from(number) {
            return Ok(Some((pid, descriptor(criu)?)));
        }
        // A zombie has no memory.
    }
}

fn descriptor(criu: &UnixStream) -> Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let received = rustix::io::retry_on_intr(|| {
        let mut slices = [IoSliceMut::new(&mut byte)];
        recvmsg(criu, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)
    });
    received.map_err(|errno| ended(errno.into()))?;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fd.ok_or_else(|| Error::new(ErrorKind::Criu, "CRIU sent a task without its memory"))
}

fn ended(error: std::io::Error) -> Error {
    let text = "CRIU ended before it had sent all memory";
    Error::caused_by(ErrorKind::Criu, text, error)
}
