//! A file as it is open: several descriptors may have it in common.

use std::sync::Arc;

use super::message::{FileEntry, MemfdInode};
use super::socket;

/// An open file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct File {
    /// What kind it is, in a word: `file`, `pipe`, `tcp`, `unix-stream`, `epoll`, ...
    pub kind: &'static str,
    /// A path, addresses, or what else tells it from others; may be empty. A unix socket's
    /// abstract name begins with a zero byte.
    pub name: Arc<[u8]>,
    /// As the kernel's O_: how it was opened.
    pub flags: u32,
    /// Where it is read and written next, in bytes.
    pub position: Option<u64>,
    /// What a socket does, in a word.
    pub state: Option<&'static str>,
    /// A number behind it: an event counter, how many files are watched.
    pub count: Option<u64>,
    /// The pipe or socket that it is an end of, by a number of the dump's host.
    pub inode: Option<u32>,
    /// The socket it is connected to, by such a number.
    pub peer: Option<u32>,
}

/// What an entry of `files.img` is. `path` gives the paths of other entries.
pub(super) fn of<'a>(
    entry: &FileEntry,
    memfd: Option<&MemfdInode>,
    path: impl Fn(u32) -> Option<&'a [u8]>,
) -> File {
    if let Some(inet) = &entry.inet {
        return socket::inet(inet);
    }
    if let Some(unix) = &entry.unix {
        return socket::unix(unix);
    }
    let other_path = |id: Option<u32>| id.and_then(path).unwrap_or_default().into();
    let mut file = File {
        kind: kind(entry.kind),
        ..File::default()
    };
    if let Some(regular) = &entry.regular {
        file.name = regular.path.as_slice().into();
        file.flags = regular.flags;
        file.position = Some(regular.position);
    } else if let Some(pipe) = &entry.pipe {
        file.flags = pipe.flags;
        file.inode = Some(pipe.pipe);
    } else if let Some(fifo) = &entry.fifo {
        file.name = other_path(fifo.file);
        file.inode = Some(fifo.pipe);
    } else if let Some(terminal) = &entry.terminal {
        file.name = other_path(terminal.file);
        file.flags = terminal.flags;
    } else if let Some(open) = &entry.memfd {
        let name = memfd.map_or(&[][..], |memfd| &memfd.name);
        file.name = [b"memfd:", name].concat().into();
        file.flags = open.flags;
        file.position = Some(open.position);
    } else {
        special(entry, &mut file);
    }
    file
}

/// What the kernel makes for events.
fn special(entry: &FileEntry, file: &mut File) {
    if let Some(eventfd) = &entry.eventfd {
        file.flags = eventfd.flags;
        file.count = Some(eventfd.counter);
    } else if let Some(epoll) = &entry.epoll {
        file.flags = epoll.flags;
        file.count = Some(epoll.watched.len() as u64);
    } else if let Some(signalfd) = &entry.signalfd {
        file.flags = signalfd.flags;
        file.name = format!("signals {:#x}", signalfd.mask).into_bytes().into();
    } else if let Some(timerfd) = &entry.timerfd {
        file.flags = timerfd.flags;
        let interval = match (timerfd.seconds, timerfd.nanoseconds) {
            (0, 0) => String::new(),
            (seconds, nanoseconds) => format!("every {seconds}.{nanoseconds:09} s"),
        };
        file.name = interval.into_bytes().into();
    } else if let Some(netlink) = &entry.netlink {
        file.flags = netlink.flags;
        file.name = format!("protocol {}", netlink.protocol).into_bytes().into();
    } else if let Some(pidfd) = &entry.pidfd {
        file.flags = pidfd.flags;
        file.name = format!("process {}", pidfd.process).into_bytes().into();
    }
}

/// CRIU's numbers of kinds, from its images/fdinfo.proto.
fn kind(number: u32) -> &'static str {
    const KINDS: [&str; 21] = [
        "unknown",
        "file",
        "pipe",
        "fifo",
        "inet",
        "unix",
        "eventfd",
        "epoll",
        "inotify",
        "signalfd",
        "packet",
        "terminal",
        "fanotify",
        "netlink",
        "namespace",
        "tun",
        "external",
        "timerfd",
        "memfd",
        "bpf-map",
        "pidfd",
    ];
    KINDS.get(number as usize).copied().unwrap_or(KINDS[0])
}
