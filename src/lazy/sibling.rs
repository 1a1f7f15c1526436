//! A sibling as the server sees it: its line, and what was said on it.

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use super::message::{self, Message};
use crate::error::IoContext;
use crate::{Error, Result};

/// Numbers of children begin here: no process id is as large.
const FIRST_CHILD: u64 = 1 << 32;

/// A sibling.
pub struct Sibling {
    /// Its name.
    pub name: String,
    /// The line, until its other end is gone.
    line: Option<OwnedFd>,
    /// What the line does not take yet.
    outgoing: VecDeque<(Message, Option<OwnedFd>)>,
    /// Its address spaces, by the server's keys.
    pub spaces: BTreeSet<u64>,
    /// Whether all of them have been sent.
    pub complete: bool,
    /// When that was, as long as what it wants first is being recorded.
    pub recorded_since: Option<Instant>,
    /// Whether it was said that it lacks nothing.
    pub independent: bool,
    /// Whether it was given up: its memory is kept from becoming zeros, and no more.
    pub failed: bool,
    /// Whether all that it lacks is to be fetched.
    pub detaching: bool,
    children: u64,
}

impl Sibling {
    /// One that has just said its name.
    pub fn new(name: String, line: OwnedFd) -> Sibling {
        Sibling {
            name,
            line: Some(line),
            outgoing: VecDeque::new(),
            spaces: BTreeSet::new(),
            complete: false,
            recorded_since: None,
            independent: false,
            failed: false,
            detaching: false,
            children: 0,
        }
    }

    /// A number for a new child.
    pub fn next_child(&mut self) -> u64 {
        self.children += 1;
        FIRST_CHILD + self.children
    }

    /// Its line, as long as somebody is at the other end.
    pub fn line(&self) -> Option<BorrowedFd<'_>> {
        self.line.as_ref().map(AsFd::as_fd)
    }

    /// Takes the line away: nobody hears any more what is said.
    pub fn hang_up(&mut self) -> Option<OwnedFd> {
        self.outgoing.clear();
        self.line.take()
    }

    /// Says something, now or as soon as the line takes it.
    pub fn say(&mut self, message: Message, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        let Some(line) = &self.line else {
            return Ok(());
        };
        if self.outgoing.is_empty() && message::send(line.as_fd(), &message, fd, false)? {
            return Ok(());
        }
        let fd = fd.map(|fd| fd.try_clone_to_owned()).transpose();
        let fd = fd.context(|| "duplicate a userfaultfd")?;
        self.outgoing.push_back((message, fd));
        Ok(())
    }

    /// Says what the line did not take before. Whether anything is still left.
    pub fn flush(&mut self) -> Result<bool> {
        while let (Some(line), Some((message, fd))) = (&self.line, self.outgoing.front()) {
            let fd = fd.as_ref().map(AsFd::as_fd);
            if !message::send(line.as_fd(), message, fd, false)? {
                return Ok(true);
            }
            self.outgoing.pop_front();
        }
        Ok(false)
    }

    /// Gives it up, and says so.
    pub fn fail(&mut self, error: &Error) {
        if self.failed {
            return;
        }
        self.failed = true;
        tracing::error!("{}: {error}", self.name);
        let reason = message::reason(&error.to_string());
        let _ = self.say(Message::Failed { reason }, None);
    }
}
