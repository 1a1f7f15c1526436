//! One entry of a layer, the same whether read from a disk or from a tar.

use std::fmt;

/// Where an entry is, relative to the layer's root, which is empty bytes.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct EntryPath(pub Vec<u8>);

impl EntryPath {
    /// The path of `name` in this directory.
    pub fn join(&self, name: &[u8]) -> EntryPath {
        let mut path = Vec::with_capacity(self.0.len() + 1 + name.len());
        path.extend_from_slice(&self.0);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        EntryPath(path)
    }

    /// The directory it is in, and its name there. The root is in itself.
    pub fn split(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (&[], &self.0),
        }
    }

    /// Whether it is somewhere inside the directory at `ancestor`.
    pub fn is_inside(&self, ancestor: &EntryPath) -> bool {
        let rest = self.0.strip_prefix(ancestor.0.as_slice());
        match ancestor.is_root() {
            true => !self.is_root(),
            false => rest.is_some_and(|rest| rest.starts_with(b"/")),
        }
    }

    /// Whether this is the layer's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Its names from the root down.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0
            .split(|&byte| byte == b'/')
            .filter(|name| !name.is_empty())
    }

    /// Orders paths so that a directory is followed by all that is in it:
    /// the separator sorts before every byte that a name may hold.
    pub fn order(&self, other: &EntryPath) -> std::cmp::Ordering {
        let key = |&byte: &u8| if byte == b'/' { 0 } else { byte };
        self.0.iter().map(key).cmp(other.0.iter().map(key))
    }
}

/// As an absolute path in the container, unprintable bytes escaped.
impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A stretch of a sparse file that holds data, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub start: u64,
    pub len: u64,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    /// The directory just seen hides the one below it.
    Opaque,
    /// `segments` is there when the file has holes.
    File {
        size: u64,
        segments: Option<Vec<Segment>>,
    },
    Symlink {
        target: Vec<u8>,
    },
    /// One more name of an entry seen before.
    Hardlink {
        target: EntryPath,
    },
    CharDevice(Device),
    BlockDevice(Device),
    Fifo,
    Socket,
    /// The name is deleted.
    Whiteout,
    /// In a delta layer: the layers below have the name, this world has not.
    Removed,
}

/// A device's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Device {
    pub major: u32,
    pub minor: u32,
}

/// A time of last change, since 1970; `nanos` counts forward from `seconds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mtime {
    pub seconds: i64,
    pub nanos: u32,
}

/// An extended attribute's name and value.
pub(super) type Xattr = (Vec<u8>, Vec<u8>);

/// Who owns an entry and what may be done with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Meta {
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Mtime,
    /// Sorted by name.
    pub xattrs: Vec<Xattr>,
}

/// One entry of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub path: EntryPath,
    pub kind: Kind,
    pub meta: Meta,
}

impl Entry {
    /// An entry that is only a mark: it has no owner, mode or time.
    pub fn mark(path: EntryPath, kind: Kind) -> Entry {
        Entry {
            path,
            kind,
            meta: Meta::default(),
        }
    }

    /// How many bytes of data it has, holes left out.
    pub fn data(&self) -> u64 {
        match &self.kind {
            Kind::File { size, segments } => segments
                .as_ref()
                .map_or(*size, |list| list.iter().map(|segment| segment.len).sum()),
            _ => 0,
        }
    }
}
