//! What goes over a line, and how: one JSON document per packet, with at most one descriptor.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

/// The protocol that both ends must speak.
pub const VERSION: u32 = 1;
/// Most bytes of a message.
const MOST: usize = 4096;
/// Most bytes of a reason; the escapes of JSON make at most six of each.
const MOST_REASON: usize = 600;

/// A message, from whichever end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Message {
    /// To the server, first: this is the line of a sibling.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// The sibling's name, unique in this server.
        sibling: String,
    },
    /// To the server, first: fetch all that a sibling lacks.
    Detach {
        /// The sibling's name.
        sibling: String,
    },
    /// To the server, first: how things stand.
    Status,
    /// To the server, with a userfaultfd: the memory of a task.
    Space {
        /// Its process id in the images.
        pid: u32,
    },
    /// To the server: there are no more tasks.
    Complete,

    /// From the server: what was asked for is so.
    Welcome,
    /// From the server: what was asked for is not so, and the line ends.
    Refused {
        /// Why.
        reason: String,
    },
    /// From the server: how things stand.
    State(State),
    /// From the server, with a userfaultfd: the memory of a new child.
    Child {
        /// The memory's number, which none of this line had.
        number: u64,
    },
    /// From the server: no task lives any more in some memory.
    Gone {
        /// The memory's number; the process id where it is one that was sent.
        number: u64,
    },
    /// From the server: all memory of the sibling is there.
    Independent,
    /// From the server: the sibling can go on no more, and the line ends.
    Failed {
        /// Why.
        reason: String,
    },
}

/// How things stand with a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Siblings that depend on it.
    pub siblings: u64,
    /// Address spaces of theirs.
    pub spaces: u64,
    /// Pages that they lack.
    pub missing_pages: u64,
    /// Page faults so far.
    pub faults: u64,
    /// Pages filled with data so far, asked for or not.
    pub filled_pages: u64,
}

/// What came.
pub enum Incoming {
    /// A message and the descriptor with it.
    Message(Message, Option<OwnedFd>),
    /// Nothing yet.
    Nothing,
    /// The other end is gone.
    Closed,
}

/// Cuts a reason to what a message holds.
pub fn reason(text: &str) -> String {
    let end = (0..=MOST_REASON.min(text.len())).rfind(|at| text.is_char_boundary(*at));
    text[..end.unwrap_or(0)].to_owned()
}

/// Sends a message; `false` where the other end does not take it now, and `wait` is not given.
pub fn send(
    socket: BorrowedFd<'_>,
    message: &Message,
    fd: Option<BorrowedFd<'_>>,
    wait: bool,
) -> Result<bool> {
    let bytes = serde_json::to_vec(message)
        .map_err(|error| Error::caused_by(ErrorKind::Internal, "write a message", error))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<_> = fd.into_iter().collect();
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    let mut flags = SendFlags::NOSIGNAL;
    flags.set(SendFlags::DONTWAIT, !wait);
    let sent =
        rustix::io::retry_on_intr(|| sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, flags));
    match sent {
        Ok(_) => Ok(true),
        // Too many descriptors are on their way.
        Err(Errno::AGAIN | Errno::TOOMANYREFS) if !wait => Ok(false),
        Err(errno) => Err(errno).context(|| "send on a line of the page server"),
    }
}

/// The next message.
pub fn receive(socket: BorrowedFd<'_>, wait: bool) -> Result<Incoming> {
    let mut bytes = [0; MOST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut flags = RecvFlags::CMSG_CLOEXEC;
    flags.set(RecvFlags::DONTWAIT, !wait);
    let received = rustix::io::retry_on_intr(|| {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        recvmsg(socket, &mut slices, &mut control, flags)
    });
    let received = match received {
        Ok(received) if received.bytes == 0 => return Ok(Incoming::Closed),
        Ok(received) => received,
        Err(Errno::AGAIN) => return Ok(Incoming::Nothing),
        Err(Errno::CONNRESET) => return Ok(Incoming::Closed),
        Err(errno) => return Err(errno).context(|| "hear from a line of the page server"),
    };
    let mut fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let fd = fds.next();
    let message = parse(&bytes[..received.bytes])?;
    Ok(Incoming::Message(message, fd))
}

/// Reads a message.
pub fn parse(bytes: &[u8]) -> Result<Message> {
    serde_json::from_slice(bytes).map_err(|error| {
        let text = "a message on a line of the page server is none";
        Error::caused_by(ErrorKind::InvalidInput, text, error)
    })
}

/// A connected pair of sockets, as a line has.
#[cfg(test)]
pub fn pair() -> (OwnedFd, OwnedFd) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let kind = SocketType::SEQPACKET;
    socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).expect("a pair of sockets")
}

/// The descriptor of a socket, for those who wait on it.
pub fn listener(path: &std::path::Path) -> Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let what = || format!("listen on {}", path.display());
    let kind = SocketType::SEQPACKET;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None).context(what)?;
    let address = SocketAddrUnix::new(path).context(what)?;
    rustix::net::bind(&socket, &address).context(what)?;
    rustix::net::listen(&socket, 128).context(what)?;
    Ok(socket)
}

/// Connects to a server's socket.
pub fn connect(path: &std::path::Path) -> Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let what = || format!("connect to the page server at {}", path.display());
    let kind = SocketType::SEQPACKET;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
        .context(what)?;
    let address = SocketAddrUnix::new(path).context(what)?;
    rustix::io::retry_on_intr(|| rustix::net::connect(socket.as_fd(), &address)).context(what)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_and_descriptors_go_across() {
        let (here, there) = pair();
        let file = tempfile::tempfile().unwrap();
        for (message, fd) in [
            (Message::Space { pid: 7 }, Some(file.as_fd())),
            (Message::Independent, None),
        ] {
            assert!(send(here.as_fd(), &message, fd, false).unwrap());
            match receive(there.as_fd(), true).unwrap() {
                Incoming::Message(got, got_fd) => {
                    assert_eq!((got, got_fd.is_some()), (message, fd.is_some()));
                }
                _ => panic!("nothing came"),
            }
        }
        assert!(matches!(
            receive(there.as_fd(), false),
            Ok(Incoming::Nothing)
        ));
        drop(here);
        assert!(matches!(receive(there.as_fd(), true), Ok(Incoming::Closed)));
    }

    #[test]
    fn a_reason_of_any_length_fits() {
        let reason = reason(&"\u{1}ä".repeat(5000));
        let bytes = serde_json::to_vec(&Message::Failed { reason }).unwrap();
        assert!(bytes.len() <= MOST, "{}", bytes.len());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
