//! Sockets as CRIU tells of them.

use std::net::SocketAddr;

use super::file::File;
use super::message::{Inet, Unix};
use crate::criu::tcp_image::ip_of;

const LISTEN: u32 = 10;

/// An internet socket.
pub(super) fn inet(socket: &Inet) -> File {
    let end = |words: &[u32], port: u32| {
        let address = ip_of(words);
        address.map(|ip| SocketAddr::new(ip, port as u16).to_string())
    };
    let name = match (
        end(&socket.local, socket.local_port),
        end(&socket.peer, socket.peer_port),
    ) {
        (Some(local), Some(peer)) if socket.peer_port != 0 => format!("{local} -> {peer}"),
        (Some(local), _) => local,
        _ => String::new(),
    };
    let is_tcp = matches!(socket.protocol, 6 | 262);
    File {
        kind: match socket.protocol {
            1 | 58 => "icmp",
            6 => "tcp",
            17 => "udp",
            136 => "udplite",
            262 => "mptcp",
            _ => "raw",
        },
        name: name.into_bytes().into(),
        flags: socket.flags,
        state: is_tcp.then(|| state(socket.state)),
        ..File::default()
    }
}

/// A unix socket.
pub(super) fn unix(socket: &Unix) -> File {
    File {
        kind: match socket.kind {
            1 => "unix-stream",
            2 => "unix-datagram",
            5 => "unix-packets",
            _ => "unix",
        },
        name: match socket.name.split_last() {
            // A path ends in a zero byte, an abstract name begins with one.
            Some((0, path)) if socket.name[0] != 0 => path.into(),
            _ => socket.name.as_slice().into(),
        },
        flags: socket.flags,
        state: Some(match socket.state {
            LISTEN => "listen",
            1 => "connected",
            _ => "unconnected",
        }),
        inode: Some(socket.inode),
        peer: Some(socket.peer).filter(|peer| *peer != 0),
        ..File::default()
    }
}

/// The kernel's TCP states.
fn state(number: u32) -> &'static str {
    const STATES: [&str; 13] = [
        "unknown",
        "established",
        "syn-sent",
        "syn-received",
        "fin-wait-1",
        "fin-wait-2",
        "time-wait",
        "closed",
        "close-wait",
        "last-ack",
        "listen",
        "closing",
        "new-syn-received",
    ];
    STATES.get(number as usize).copied().unwrap_or(STATES[0])
}
