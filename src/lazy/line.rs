//! The line of a sibling: what ties it to the page server of its world.
//!
//! A userfaultfd that nobody has open any more turns all memory that is still
//! missing into zeros, in silence. So two processes hold each: the server, and
//! whoever holds the sibling's [`Line`], which keeps a duplicate of every
//! userfaultfd, those of later children too.
//!
//! ```text
//! line                                        server
//! Hello { version, sibling }           ->
//!                                      <-     Welcome, or Refused { reason } and the end
//! Space { pid } + userfaultfd, ...     ->
//! Complete                             ->
//!                                      <-     Child { number } + userfaultfd
//!                                      <-     Gone { number }
//!                                      <-     Independent, or Failed { reason } and the end
//! ```
//!
//! Each is one packet of a SOCK_SEQPACKET socket, one JSON document.
//! What the holder of a line must do: see [`News`].

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::message::{self, Incoming, Message, State, VERSION};
use crate::{Error, ErrorKind, Result};

/// What the server says that its sibling's guardian must act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// All memory is there. Drop the line: the server is needed no more.
    Independent,
    /// The sibling lacks memory that it will not get, and hangs where it touches it. Kill all
    /// of its tasks, wait for their end, and only then drop the line.
    Failed(String),
    /// The server is gone. As for `Failed`.
    Closed,
}

/// One end of a line: the sibling's.
#[derive(Debug)]
pub struct Line {
    socket: OwnedFd,
    /// By number: the process id in the images, or what the server numbered a child.
    held: BTreeMap<u64, OwnedFd>,
}

impl Line {
    /// Opens a sibling's line to the server at `path`. The name must be that of no other
    /// sibling of this server; waits for the answer.
    pub fn connect(path: &Path, sibling: &str) -> Result<Line> {
        let socket = message::connect(path)?;
        let hello = Message::Hello {
            version: VERSION,
            sibling: sibling.to_owned(),
        };
        ask(&socket, &hello)?;
        Ok(Line {
            socket,
            held: BTreeMap::new(),
        })
    }

    /// Gives the server the memory of a task, by its process id in the images; keeps `uffd`.
    pub fn send_space(&mut self, pid: u32, uffd: OwnedFd) -> Result<()> {
        let fd = Some(uffd.as_fd());
        message::send(self.socket.as_fd(), &Message::Space { pid }, fd, true)?;
        self.held.insert(pid.into(), uffd);
        Ok(())
    }

    /// Tells the server that it has been sent the memory of every task.
    pub fn complete(&mut self) -> Result<()> {
        message::send(self.socket.as_fd(), &Message::Complete, None, true).map(drop)
    }

    /// Waits until there is something to act on. Until then it keeps what new children bring,
    /// and drops what belongs to ended ones.
    pub fn recv(&mut self) -> Result<News> {
        loop {
            if let Some(news) = self.step(true)? {
                return Ok(news);
            }
        }
    }

    /// As [`Line::recv`] with what has come already; `None` where there is nothing to act on
    /// yet. To be called whenever the line is readable.
    pub fn try_recv(&mut self) -> Result<Option<News>> {
        loop {
            match message::receive(self.socket.as_fd(), false)? {
                Incoming::Nothing => return Ok(None),
                incoming => {
                    if let Some(news) = self.take(incoming)? {
                        return Ok(Some(news));
                    }
                }
            }
        }
    }

    fn step(&mut self, wait: bool) -> Result<Option<News>> {
        let incoming = message::receive(self.socket.as_fd(), wait)?;
        self.take(incoming)
    }

    fn take(&mut self, incoming: Incoming) -> Result<Option<News>> {
        match incoming {
            Incoming::Nothing => Ok(None),
            Incoming::Closed => Ok(Some(News::Closed)),
            Incoming::Message(Message::Child { number }, Some(uffd)) => {
                self.held.insert(number, uffd);
                Ok(None)
            }
            Incoming::Message(Message::Gone { number }, None) => {
                self.held.remove(&number);
                Ok(None)
            }
            Incoming::Message(Message::Independent, None) => Ok(Some(News::Independent)),
            Incoming::Message(Message::Failed { reason }, None) => Ok(Some(News::Failed(reason))),
            Incoming::Message(other, _) => Err(unexpected(&other)),
        }
    }

    /// How many address spaces it keeps from becoming zeros.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Its descriptors, to hand it to another process: the socket, and what it holds.
    pub fn into_parts(self) -> (OwnedFd, Vec<(u64, OwnedFd)>) {
        (self.socket, self.held.into_iter().collect())
    }

    /// The line that another process had.
    pub fn from_parts(socket: OwnedFd, held: Vec<(u64, OwnedFd)>) -> Line {
        Line {
            socket,
            held: held.into_iter().collect(),
        }
    }
}

/// Readable when [`Line::try_recv`] has something to read.
impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Has the server at `path` fetch all memory that a sibling lacks; its line hears of the end.
/// [`ErrorKind::NotFound`] where no such sibling depends on it.
pub fn detach(path: &Path, sibling: &str) -> Result<()> {
    let sibling = sibling.to_owned();
    ask(&message::connect(path)?, &Message::Detach { sibling }).map(drop)
}

/// How things stand with the server at `path`.
pub fn state(path: &Path) -> Result<State> {
    match ask(&message::connect(path)?, &Message::Status)? {
        Message::State(state) => Ok(state),
        other => Err(unexpected(&other)),
    }
}

/// Says something and waits for the answer.
fn ask(socket: &OwnedFd, question: &Message) -> Result<Message> {
    message::send(socket.as_fd(), question, None, true)?;
    match message::receive(socket.as_fd(), true)? {
        Incoming::Message(Message::Refused { reason }, _) => {
            let kind = match question {
                Message::Detach { .. } => ErrorKind::NotFound,
                _ => ErrorKind::Unavailable,
            };
            Err(Error::new(
                kind,
                format!("the page server refuses: {reason}"),
            ))
        }
        Incoming::Message(answer, _) => Ok(answer),
        Incoming::Nothing | Incoming::Closed => Err(Error::new(
            ErrorKind::Unavailable,
            "the page server ended before it answered",
        )),
    }
}

fn unexpected(message: &Message) -> Error {
    let text = format!("the page server said what it should not: {message:?}");
    Error::new(ErrorKind::Internal, text)
}
