//! Which established TCP connections a container has, and where they lead.
//!
//! CRIU has to keep packets away while it reads a socket whose other end runs
//! on; that costs 40 to 100 ms and is needless when there is no such socket.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::parameters::TcpFacts;
use super::tree::Process;
use crate::error::{IoContext, Result};

/// One socket of /proc/PID/net/tcp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Socket {
    local: SocketAddr,
    remote: SocketAddr,
    state: u8,
    inode: u64,
}

/// States that hold no connection: TIME_WAIT, CLOSE, LISTEN, NEW_SYN_RECV.
const UNCONNECTED: [u8; 4] = [6, 7, 10, 12];

/// Counts the connections of the processes, which share one network namespace.
pub(super) fn facts(processes: &[Process]) -> Result<TcpFacts> {
    let owned = socket_inodes(processes);
    let Some(first) = processes.first() else {
        return Ok(TcpFacts::default());
    };
    let mut sockets = Vec::new();
    for table in ["tcp", "tcp6"] {
        let path = format!("/proc/{}/net/{table}", first.host_pid);
        match std::fs::read_to_string(&path) {
            Ok(text) => sockets.extend(text.lines().skip(1).filter_map(parse_line)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {} // No IPv6.
            Err(error) => return Err(error).context(|| format!("read {path}")),
        }
    }
    Ok(count(&sockets, &owned))
}

fn count(sockets: &[Socket], owned: &HashSet<u64>) -> TcpFacts {
    let connected: HashMap<_, _> = sockets
        .iter()
        .filter(|socket| owned.contains(&socket.inode) && !UNCONNECTED.contains(&socket.state))
        .map(|socket| ((socket.local, socket.remote), socket))
        .collect();
    let inside = connected
        .keys()
        .filter(|(local, remote)| connected.contains_key(&(*remote, *local)))
        .count();
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    TcpFacts {
        inside: number(inside),
        outside: number(connected.len() - inside),
    }
}

/// Inodes of all sockets that the processes have open.
fn socket_inodes(processes: &[Process]) -> HashSet<u64> {
    processes
        .iter()
        .filter_map(|process| std::fs::read_dir(format!("/proc/{}/fd", process.host_pid)).ok())
        .flat_map(|entries| entries.flatten())
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter_map(|link| {
            let inner = link.to_str()?.strip_prefix("socket:[")?;
            inner.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

/// `0: 0100007F:1F90 0100007F:A0B2 01 00000000:00000000 00:00000000 00000000 0 0 4711 …`
fn parse_line(line: &str) -> Option<Socket> {
    let mut words = line.split_whitespace().skip(1);
    let local = parse_address(words.next()?)?;
    let remote = parse_address(words.next()?)?;
    let state = u8::from_str_radix(words.next()?, 16).ok()?;
    let inode = words.nth(5)?.parse().ok()?;
    Some(Socket {
        local,
        remote,
        state,
        inode,
    })
}

/// An address as the kernel prints it: 32-bit words in the machine's byte order.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for at in (0..address.len()).step_by(8) {
        let word = u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(four) => IpAddr::V4(Ipv4Addr::from(four)),
        Err(_) => {
            let ip = Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[..]).ok()?);
            ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)
        }
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(local: &str, remote: &str, state: u8, inode: u64) -> Socket {
        Socket {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            state,
            inode,
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn lines_parse() {
        let line = "   0: 0100007F:1F90 0200000A:A0B2 01 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000";
        let expected = socket("127.0.0.1:8080", "10.0.0.2:41138", 1, 4711);
        assert_eq!(parse_line(line), Some(expected));
        let mapped = "0000000000000000FFFF00000100007F:1F90";
        assert_eq!(parse_address(mapped), "127.0.0.1:8080".parse().ok());
    }

    #[test]
    fn both_ends_inside_or_one() {
        let sockets = [
            socket("127.0.0.1:80", "0.0.0.0:0", 10, 1),
            socket("127.0.0.1:80", "127.0.0.1:4000", 1, 2),
            socket("127.0.0.1:4000", "127.0.0.1:80", 1, 3),
            socket("10.0.0.1:80", "10.0.0.9:4000", 1, 4),
            socket("10.0.0.1:80", "10.0.0.9:4001", 1, 99),
        ];
        let owned = HashSet::from([1, 2, 3, 4]);
        let expected = TcpFacts {
            inside: 2,
            outside: 1,
        };
        assert_eq!(count(&sockets, &owned), expected);
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(line in "\\PC*", address in "[0-9A-Fé]{0,40}:[0-9A-F]{0,6}") {
            let _ = parse_line(&line);
            let _ = parse_address(&address);
        }
    }
}
