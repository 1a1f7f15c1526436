//! Open files and sockets, by process and descriptor.
//!
//! Pipes and sockets are known by numbers of the kernel's, which say nothing in
//! another container or after a restore. In their place stands the first
//! descriptor that has the pipe, or the socket at the other end.

use std::collections::HashMap;

use serde::Serialize;

use super::listing::{Change, Listing};
use super::processes::{Pairs, union};
use crate::criu::dumped::{OpenFile, Process};
use crate::world::raw_text::RawText;

/// A descriptor that differs.
#[derive(Debug, Serialize)]
pub struct OpenFileChange {
    /// The process.
    pub pid: u32,
    /// The descriptor.
    pub fd: u32,
    /// What happened to it.
    pub change: Change,
    /// The fields of the views that differ.
    pub what: Vec<&'static str>,
    /// In the first world.
    pub before: Option<OpenFileView>,
    /// In the second.
    pub after: Option<OpenFileView>,
}

/// What is open.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct OpenFileView {
    /// `file`, `pipe`, `tcp`, `udp`, `unix-stream`, `epoll` and so on.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// A path, addresses, or what else tells it from others; an abstract name begins with `@`.
    pub name: RawText,
    /// `read`, `write` or `read-write`.
    pub access: &'static str,
    /// Flags of its opening, octal, as in `/proc/PID/fdinfo`.
    pub flags: String,
    /// Whether it closes when another program is run.
    pub close_on_exec: bool,
    /// Where it is read and written next, in bytes.
    pub position: Option<u64>,
    /// What a socket does: `listen`, `established` and so on.
    pub state: Option<&'static str>,
    /// An event counter, or how many files are watched.
    pub count: Option<u64>,
    /// Of a pipe, the first descriptor that has it; of a connected socket, the first that
    /// has its other end. `PID/FD`, or `outside`.
    pub peer: Option<String>,
}

impl OpenFileView {
    fn of(open: &OpenFile, ends: &Ends) -> OpenFileView {
        let file = &open.file;
        let name = match file.name.split_first() {
            Some((0, name)) => [b"@", name].concat(),
            _ => file.name.to_vec(),
        };
        OpenFileView {
            kind: file.kind,
            name: RawText(name),
            access: match file.flags & 3 {
                0 => "read",
                1 => "write",
                _ => "read-write",
            },
            flags: format!("{:o}", file.flags),
            close_on_exec: open.close_on_exec,
            position: file.position,
            state: file.state,
            count: file.count,
            peer: ends.peer(open),
        }
    }

    fn differing(&self, other: &OpenFileView) -> Vec<&'static str> {
        let all = [
            ("type", self.kind != other.kind),
            ("name", self.name != other.name),
            ("access", self.access != other.access),
            ("flags", self.flags != other.flags),
            ("close_on_exec", self.close_on_exec != other.close_on_exec),
            ("position", self.position != other.position),
            ("state", self.state != other.state),
            ("count", self.count != other.count),
            ("peer", self.peer != other.peer),
        ];
        let differing = all.into_iter().filter(|(_, differs)| *differs);
        differing.map(|(name, _)| name).collect()
    }
}

/// The first descriptors of a world's pipes and unix sockets, by the kernel's numbers.
struct Ends {
    first: HashMap<(bool, u32), (u32, u32)>,
}

impl Ends {
    fn of(processes: &[Process]) -> Ends {
        let mut first: HashMap<(bool, u32), (u32, u32)> = HashMap::new();
        for process in processes {
            for open in &process.files {
                if let Some(inode) = open.file.inode {
                    let here = (process.pid, open.fd);
                    let known = first.entry((is_socket(open), inode)).or_insert(here);
                    *known = here.min(*known);
                }
            }
        }
        Ends { first }
    }

    fn peer(&self, open: &OpenFile) -> Option<String> {
        let wanted = match is_socket(open) {
            true => open.file.peer,
            false => open.file.inode,
        };
        let first = self.first.get(&(is_socket(open), wanted?));
        Some(match first {
            Some((pid, fd)) => format!("{pid}/{fd}"),
            None => "outside".to_owned(),
        })
    }
}

fn is_socket(open: &OpenFile) -> bool {
    open.file.kind.starts_with("unix")
}

fn by_descriptor(process: Option<&Process>) -> HashMap<u32, &OpenFile> {
    let files = process.into_iter().flat_map(|process| &process.files);
    files.map(|open| (open.fd, open)).collect()
}

pub(super) fn compare(
    before: &[Process],
    after: &[Process],
    pairs: &Pairs<'_>,
) -> Listing<OpenFileChange> {
    let ends = (Ends::of(before), Ends::of(after));
    let mut listing = Listing::default();
    for (pid, (old, new)) in pairs {
        let (old, new) = (by_descriptor(*old), by_descriptor(*new));
        for fd in union(old.keys().copied(), new.keys().copied()) {
            let view = |files: &HashMap<u32, &OpenFile>, ends: &Ends| {
                files.get(&fd).map(|open| OpenFileView::of(open, ends))
            };
            let (before, after) = (view(&old, &ends.0), view(&new, &ends.1));
            if before == after {
                continue;
            }
            let change = Change::of(before.as_ref(), after.as_ref());
            let views = [&before, &after].into_iter().flatten();
            let texts = views.map(|view| view.name.0.len() + 40).sum();
            let what = match (&before, &after) {
                (Some(before), Some(after)) => before.differing(after),
                _ => Vec::new(),
            };
            let item = OpenFileChange {
                pid: *pid,
                fd,
                change,
                what,
                before,
                after,
            };
            listing.push(change, item, texts);
        }
    }
    listing
}
