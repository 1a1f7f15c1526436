//! What comes over lines, and what is answered.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll;
use rustix::io::Errno;

use super::super::message::{self, Incoming, Message, State, VERSION};
use super::super::missing::Missing;
use super::super::sibling::Sibling;
use super::super::space::Space;
use super::{Behind, Server};
use crate::error::IoContext;
use crate::memory::addresses::Addresses;
use crate::{Error, ErrorKind, Result};

impl Server<'_> {
    pub(super) fn accept(&mut self) -> Result<()> {
        let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
        match rustix::net::accept_with(&self.listener, flags) {
            Ok(socket) => self.add(Behind::Stranger(socket)).map(drop),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(()),
            Err(errno) => Err(errno).context(|| "take a connection"),
        }
    }

    /// The first message of a connection says what it is for.
    pub(super) fn hear_stranger(&mut self, key: u64) -> Result<()> {
        let Some(Behind::Stranger(socket)) = self.behind.remove(&key) else {
            return Ok(());
        };
        let answer = match message::receive(socket.as_fd(), false) {
            Ok(Incoming::Message(Message::Hello { version, sibling }, None)) => {
                return self.welcome(key, socket, version, sibling);
            }
            Ok(Incoming::Message(Message::Detach { sibling }, None)) => self.detach(&sibling),
            Ok(Incoming::Message(Message::Status, None)) => {
                // Whoever asks may be about to open a line.
                self.idle_since = self.idle_since.map(|_| Instant::now());
                Message::State(self.state())
            }
            Ok(Incoming::Closed) => return Ok(()),
            Ok(Incoming::Nothing) => {
                self.behind.insert(key, Behind::Stranger(socket));
                return Ok(());
            }
            Ok(Incoming::Message(..)) => refused("that is no beginning"),
            Err(error) => refused(&error.to_string()),
        };
        let _ = message::send(socket.as_fd(), &answer, None, false);
        Ok(())
    }

    fn welcome(&mut self, key: u64, socket: OwnedFd, version: u32, name: String) -> Result<()> {
        let refusal = if version != VERSION {
            Some(refused(&format!(
                "it speaks version {VERSION} of the protocol"
            )))
        } else if self.siblings.values().any(|sibling| sibling.name == name) {
            Some(refused(&format!("there is a sibling {name} already")))
        } else {
            None
        };
        let answer = refusal.as_ref().unwrap_or(&Message::Welcome);
        let sent = message::send(socket.as_fd(), answer, None, false).unwrap_or(false);
        if refusal.is_none() && sent {
            self.idle_since = None;
            self.siblings.insert(key, Sibling::new(name, socket));
            self.behind.insert(key, Behind::Line(key));
        }
        Ok(())
    }

    fn detach(&mut self, name: &str) -> Message {
        let found = self.siblings.values_mut().find(|it| it.name == name);
        let Some(sibling) = found.filter(|it| !it.failed) else {
            return refused(&format!("no sibling {name} depends on it"));
        };
        sibling.detaching = true;
        for key in sibling.spaces.clone() {
            if let Some(Behind::Space(_, space)) = self.behind.get_mut(&key) {
                space.expect_all();
                self.working.push_back(key);
            }
        }
        Message::Welcome
    }

    fn state(&self) -> State {
        let mut state = State {
            siblings: self.siblings.len() as u64,
            ..self.state.clone()
        };
        for behind in self.behind.values() {
            if let Behind::Space(_, space) = behind {
                state.spaces += 1;
                state.missing_pages += space.missing();
                state.filled_pages += space.filled;
            }
        }
        state
    }

    /// Takes what a sibling says.
    pub(super) fn hear(&mut self, key: u64, sibling: u64) -> Result<()> {
        loop {
            let Some(line) = self.siblings.get(&sibling).and_then(Sibling::line) else {
                return Ok(());
            };
            let taken = match message::receive(line, false) {
                Ok(Incoming::Nothing) => return Ok(()),
                Ok(Incoming::Closed) => {
                    self.hang_up(key, sibling);
                    return Ok(());
                }
                Ok(Incoming::Message(Message::Space { pid }, Some(uffd))) => {
                    self.add_process(sibling, pid, uffd)
                }
                Ok(Incoming::Message(Message::Complete, None)) => self.complete(sibling),
                Ok(Incoming::Message(..)) => Err(Error::new(
                    ErrorKind::InvalidInput,
                    "its line said what it should not",
                )),
                Err(error) => Err(error),
            };
            if let Err(error) = taken {
                self.fail(sibling, &error);
            }
        }
    }

    fn add_process(&mut self, sibling: u64, pid: u32, uffd: OwnedFd) -> Result<()> {
        let (missing, addresses) = self.processes.get(&pid).cloned().unwrap_or_else(|| {
            let none = Addresses::default();
            (Missing::default(), Arc::new(none))
        });
        let space = Space::new(pid.into(), uffd, missing, addresses);
        self.add_space(sibling, space).map(drop)
    }

    fn complete(&mut self, sibling: u64) -> Result<()> {
        let Some(it) = self.siblings.get_mut(&sibling) else {
            return Ok(());
        };
        it.complete = true;
        it.recorded_since = Some(Instant::now());
        for key in it.spaces.clone() {
            if let Some(Behind::Space(_, space)) = self.behind.get_mut(&key) {
                space.restored = true;
                if let Ok(pid) = u32::try_from(space.number) {
                    space.expect(self.working_set.of(pid));
                }
                if space.has_work() {
                    self.working.push_back(key);
                }
            }
        }
        self.check_independence(sibling);
        Ok(())
    }

    /// The other end of a line is gone. Its tasks are served as long as they live, unless they
    /// need it no more.
    fn hang_up(&mut self, key: u64, sibling: u64) {
        self.behind.remove(&key);
        let Some(it) = self.siblings.get_mut(&sibling) else {
            return;
        };
        if let Some(line) = it.hang_up() {
            let _ = epoll::delete(&self.epoll, line);
        }
        if it.independent {
            for space in it.spaces.clone() {
                self.drop_space(space);
            }
        }
        self.forget_if_over(sibling);
    }
}

fn refused(reason: &str) -> Message {
    let reason = message::reason(reason);
    Message::Refused { reason }
}
