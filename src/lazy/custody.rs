//! A line changes hands: from the process that restored a sibling to the one that guards it.
//!
//! Over a SOCK_SEQPACKET socket of their own go the messages of a line: the
//! line's socket with `Hello`, each userfaultfd that it holds with `Child`, and
//! `Complete`. Nothing of it counts before the last: a giver that dies takes its
//! restore with it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::line::Line;
use super::message::{self, Incoming, Message, VERSION};
use crate::{Error, ErrorKind, Result};

/// Hands a line over.
pub fn give(line: Line, to: BorrowedFd<'_>, sibling: &str) -> Result<()> {
    let (socket, held) = line.into_parts();
    let hello = Message::Hello {
        version: VERSION,
        sibling: sibling.to_owned(),
    };
    message::send(to, &hello, Some(socket.as_fd()), true)?;
    for (number, uffd) in &held {
        let number = *number;
        message::send(to, &Message::Child { number }, Some(uffd.as_fd()), true)?;
    }
    message::send(to, &Message::Complete, None, true).map(drop)
}

/// A line on its way to this process.
#[derive(Default)]
pub struct Taking {
    line: Option<OwnedFd>,
    held: Vec<(u64, OwnedFd)>,
    complete: bool,
}

impl Taking {
    /// Takes what has come over `from`, without waiting. False when nothing more will.
    pub fn take(&mut self, from: BorrowedFd<'_>) -> Result<bool> {
        loop {
            match message::receive(from, false)? {
                Incoming::Nothing => return Ok(true),
                Incoming::Closed => return Ok(false),
                Incoming::Message(Message::Hello { .. }, Some(line)) => self.line = Some(line),
                Incoming::Message(Message::Child { number }, Some(uffd)) => {
                    self.held.push((number, uffd));
                }
                Incoming::Message(Message::Complete, None) => self.complete = true,
                Incoming::Message(other, _) => {
                    let text = format!("the helper handed over {other:?} with a line");
                    return Err(Error::new(ErrorKind::Internal, text));
                }
            }
        }
    }

    /// The line, where all of it has come.
    pub fn finish(self) -> Option<Line> {
        let line = self.line.filter(|_| self.complete)?;
        Some(Line::from_parts(line, self.held))
    }
}
