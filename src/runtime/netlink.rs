//! As much of netlink as asking the kernel about a network namespace takes.
//!
//! A message is `struct nlmsghdr` (length, type, flags, sequence number, port:
//! 16 bytes) and a body: a structure that the type says, then attributes, each
//! of a length, a type and a value, aligned to 4 bytes. All in the byte order
//! of the machine.

use std::os::fd::OwnedFd;

use rustix::io::{Errno, Result};
use rustix::net::netlink::NETFILTER;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP_INTERRUPTED: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
/// The kernel packs a dump's answers into at most this much.
const MOST_AT_ONCE: usize = 64 << 10;

/// A socket into the network namespace in which it was opened.
pub(super) struct Netlink(OwnedFd);

impl Netlink {
    /// To interfaces, addresses, routes and rules.
    pub(super) fn route() -> Result<Netlink> {
        Netlink::open(None)
    }

    /// To the packet filter.
    pub(super) fn netfilter() -> Result<Netlink> {
        Netlink::open(Some(NETFILTER))
    }

    fn open(protocol: Option<Protocol>) -> Result<Netlink> {
        rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )
        .map(Netlink)
    }

    /// Has something done.
    pub(super) fn request(&self, kind: u16, body: &[u8]) -> Result<()> {
        self.send(kind, NLM_F_REQUEST | NLM_F_ACK, body)?;
        let answer = self.receive()?;
        match Messages(&answer).next() {
            Some((_, Answer::Done)) => Ok(()),
            Some((_, Answer::Failed(errno))) => Err(errno),
            _ => Err(Errno::PROTO),
        }
    }

    /// Asks for all objects of a kind: the bodies of the answers.
    pub(super) fn dump(&self, kind: u16, body: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.send(kind, NLM_F_REQUEST | NLM_F_DUMP, body)?;
        let mut found = Vec::new();
        loop {
            let datagram = self.receive()?;
            let mut empty = true;
            for (flags, answer) in Messages(&datagram) {
                empty = false;
                if flags & NLM_F_DUMP_INTERRUPTED != 0 {
                    return Err(Errno::AGAIN);
                }
                match answer {
                    Answer::Object(body) => found.push(body.to_vec()),
                    Answer::Done => return Ok(found),
                    Answer::Failed(errno) => return Err(errno),
                }
            }
            if empty {
                return Err(Errno::PROTO);
            }
        }
    }

    fn send(&self, kind: u16, flags: u16, body: &[u8]) -> Result<()> {
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(((HEADER + body.len()) as u32).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]); // sequence number, port
        message.extend(body);
        rustix::net::send(&self.0, &message, SendFlags::empty()).map(drop)
    }

    fn receive(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; MOST_AT_ONCE];
        let (_, length) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.0, &mut bytes[..], RecvFlags::empty())
        })?;
        bytes.truncate(length);
        Ok(bytes)
    }
}

/// One message of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Answer<'a> {
    Object(&'a [u8]),
    Done,
    Failed(Errno),
}

/// The messages in a datagram, with their flags; ends at one that is cut short.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (u16, Answer<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let length = u32::from_ne_bytes(self.0.get(..4)?.try_into().ok()?) as usize;
        let kind = number(self.0, 4)?;
        let flags = number(self.0, 6)?;
        let body = self.0.get(HEADER..length)?;
        self.0 = self.0.get(align(length)..).unwrap_or_default();
        let errno = || body.get(..4)?.try_into().ok().map(i32::from_ne_bytes);
        let answer = match kind {
            // The end of a dump tells an error too, or nothing.
            NLMSG_ERROR | NLMSG_DONE => match errno() {
                Some(0) => Answer::Done,
                None if kind == NLMSG_DONE => Answer::Done,
                Some(errno) => Answer::Failed(Errno::from_raw_os_error(-errno)),
                None => return None,
            },
            _ => Answer::Object(body),
        };
        Some((flags, answer))
    }
}

/// A body without those attributes that change by themselves.
///
/// `structure` is the length of what comes before the attributes.
pub(super) fn without(body: &[u8], structure: usize, dropped: &[u16]) -> Vec<u8> {
    let mut kept = body.get(..structure).unwrap_or(body).to_vec();
    let mut rest = body.get(structure..).unwrap_or_default();
    while let (Some(length), Some(kind)) = (number(rest, 0), number(rest, 2)) {
        let length = usize::from(length).clamp(4, rest.len());
        if !dropped.contains(&kind) {
            kept.extend(&rest[..length]);
        }
        rest = rest.get(align(length)..).unwrap_or_default();
    }
    kept
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_ne_bytes(bytes))
}

fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut message = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        message.resize(align(message.len()), 0);
        message
    }

    #[test]
    fn messages_are_taken_apart() {
        let mut datagram = message(16, 2, b"abcde");
        datagram.extend(message(NLMSG_ERROR, 0, &(-1i32).to_ne_bytes()));
        datagram.extend(message(NLMSG_DONE, 0, &[]));
        let expected = [
            (2, Answer::Object(b"abcde")),
            (0, Answer::Failed(Errno::PERM)),
            (0, Answer::Done),
        ];
        assert_eq!(Messages(&datagram).collect::<Vec<_>>(), expected);
        assert_eq!(Messages(&datagram[..20]).count(), 0);
    }

    #[test]
    fn attributes_are_left_out() {
        let body = [
            &b"head"[..],
            &[6, 0, 7, 0, b'x', b'y', 0, 0],
            &[4, 0, 8, 0],
            &[5, 0, 9, 0, b'z'],
        ]
        .concat();
        assert_eq!(
            without(&body, 4, &[7]),
            b"head\x04\0\x08\0\x05\0\x09\0z".to_vec()
        );
        assert_eq!(without(b"he", 4, &[7]), b"he".to_vec());
    }
}
