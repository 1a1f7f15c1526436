//! TCP connections in `files.img`: closing those that led out.
//!
//! CRIU can bring back all established connections or none. What is wanted is
//! both at once: connections within the container live on, others are closed.
//! A socket whose entry has no peer, no port and is shut down both ways comes
//! back as one whose connection has ended: reading gives the end, writing EPIPE.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::images::{self, Kind};
use super::wire::{self, Field};
use crate::error::Result;

/// Field of a file's entry that holds an internet socket.
const INET_SOCKET: u32 = 4;
const PROTOCOL: u32 = 5;
const STATE: u32 = 6;
const SOURCE_PORT: u32 = 7;
const PEER_PORT: u32 = 8;
const SOURCE_ADDRESS: u32 = 11;
const PEER_ADDRESS: u32 = 12;
const SHUTDOWN: u32 = 19;

const TCP: u64 = 6;
const MPTCP: u64 = 262;
/// The kernel's TCP_CLOSE.
const CLOSED: u64 = 7;
/// Shut down for reading and writing.
const BOTH_WAYS: u64 = 3;

type End = (IpAddr, u64);

/// `files.img` with every connection closed that leads out of the images;
/// `None` when there is none to close.
pub fn close_outside(image: &[u8]) -> Result<Option<Vec<u8>>> {
    let entries = images::entries(image, Kind::Files)?;
    let read = |entry: &&[u8]| -> Result<Option<(End, End)>> {
        let fields = fields(entry)?;
        let socket = fields.iter().find(|field| field.number == INET_SOCKET);
        socket
            .and_then(Field::bytes)
            .map_or(Ok(None), |socket| Ok(connection(&self::fields(socket)?)))
    };
    let connections: Vec<Option<(End, End)>> = entries.iter().map(read).collect::<Result<_>>()?;
    let known: HashSet<(End, End)> = connections.iter().flatten().copied().collect();
    let leads_out = |connection: &Option<(End, End)>| {
        connection.is_some_and(|(source, peer)| !known.contains(&(peer, source)))
    };
    if !connections.iter().any(leads_out) {
        return Ok(None);
    }
    let mut changed = Vec::with_capacity(entries.len());
    for (entry, connection) in entries.iter().zip(&connections) {
        changed.push(match leads_out(connection) {
            true => close(entry)?,
            false => entry.to_vec(),
        });
    }
    let changed = changed.iter().map(Vec::as_slice);
    Ok(Some(images::assemble(Kind::Files, changed)))
}

fn fields(message: &[u8]) -> Result<Vec<Field<'_>>> {
    wire::fields(message).ok_or_else(|| images::damaged(Kind::Files, "cannot be decoded"))
}

/// Both ends of a connected TCP socket.
fn connection(socket: &[Field<'_>]) -> Option<(End, End)> {
    let number = |wanted| {
        let field = socket.iter().rfind(|field| field.number == wanted);
        field.and_then(Field::varint).unwrap_or(0)
    };
    let is_tcp = [TCP, MPTCP].contains(&number(PROTOCOL));
    if !is_tcp || number(PEER_PORT) == 0 || number(STATE) == CLOSED {
        return None;
    }
    let source = (address(socket, SOURCE_ADDRESS)?, number(SOURCE_PORT));
    let peer = (address(socket, PEER_ADDRESS)?, number(PEER_PORT));
    Some((source, peer))
}

/// The address in a field.
fn address(socket: &[Field<'_>], wanted: u32) -> Option<IpAddr> {
    let words = socket.iter().filter(|field| field.number == wanted);
    let words: Vec<u32> = words
        .map(|field| u32::try_from(field.varint()?).ok())
        .collect::<Option<_>>()?;
    ip_of(&words)
}

/// An address as CRIU writes it: one or four words in the machine's byte order.
pub(super) fn ip_of(words: &[u32]) -> Option<IpAddr> {
    match *words {
        [word] => Some(IpAddr::V4(Ipv4Addr::from(word.to_ne_bytes()))),
        [a, b, c, d] => {
            let mut bytes = [0; 16];
            for (chunk, word) in bytes.chunks_exact_mut(4).zip([a, b, c, d]) {
                chunk.copy_from_slice(&word.to_ne_bytes());
            }
            let ip = Ipv6Addr::from(bytes);
            Some(ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4))
        }
        _ => None,
    }
}

/// A file's entry with its socket closed.
fn close(entry: &[u8]) -> Result<Vec<u8>> {
    let replaced = [STATE, SOURCE_PORT, PEER_PORT, SHUTDOWN];
    let mut changed = Vec::with_capacity(entry.len() + 16);
    for field in fields(entry)? {
        match field.bytes() {
            Some(bytes) if field.number == INET_SOCKET => {
                let mut socket = Vec::with_capacity(bytes.len() + 16);
                for field in fields(bytes)? {
                    if !replaced.contains(&field.number) {
                        socket.extend(field.raw);
                    }
                }
                wire::put_varint(&mut socket, STATE, CLOSED);
                wire::put_varint(&mut socket, SOURCE_PORT, 0);
                wire::put_varint(&mut socket, PEER_PORT, 0);
                wire::put_varint(&mut socket, SHUTDOWN, BOTH_WAYS);
                wire::put_bytes(&mut changed, INET_SOCKET, &socket);
            }
            _ => changed.extend(field.raw),
        }
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn word(address: &str) -> u64 {
        let address: Ipv4Addr = address.parse().unwrap();
        u64::from(u32::from_ne_bytes(address.octets()))
    }

    fn socket(source: (&str, u64), peer: (&str, u64), state: u64) -> Vec<u8> {
        let mut socket = Vec::new();
        for (field, number) in [
            (PROTOCOL, TCP),
            (STATE, state),
            (SOURCE_PORT, source.1),
            (PEER_PORT, peer.1),
            (SOURCE_ADDRESS, word(source.0)),
            (PEER_ADDRESS, word(peer.0)),
            (77, 5),
        ] {
            wire::put_varint(&mut socket, field, number);
        }
        let mut entry = Vec::new();
        wire::put_varint(&mut entry, 1, 2);
        wire::put_bytes(&mut entry, INET_SOCKET, &socket);
        entry
    }

    fn image(entries: &[Vec<u8>]) -> Vec<u8> {
        images::assemble(Kind::Files, entries.iter().map(Vec::as_slice))
    }

    #[test]
    fn only_what_leads_out_is_closed() {
        let here = ("127.0.0.1", 80);
        let entries = [
            socket(here, ("0.0.0.0", 0), 10),
            socket(here, ("127.0.0.1", 4000), 1),
            socket(("127.0.0.1", 4000), here, 1),
            socket(("10.0.0.2", 5000), ("10.0.0.9", 80), 1),
        ];
        let closed = close_outside(&image(&entries)).unwrap().unwrap();
        let read = images::entries(&closed, Kind::Files).unwrap();
        assert_eq!(read[..3], entries[..3]);
        assert_ne!(read[3], entries[3]);
        // The unknown field is still there, and nothing is left to close.
        assert!(read[3].windows(3).any(|bytes| bytes == [0xe8, 0x04, 5]));
        assert_eq!(close_outside(&closed).unwrap(), None);
        assert_eq!(close_outside(&image(&entries[..3])).unwrap(), None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(entries: Vec<Vec<u8>>) {
            let _ = close_outside(&image(&entries));
        }
    }
}
