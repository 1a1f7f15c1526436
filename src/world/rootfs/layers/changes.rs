//! What differs between the layers of two worlds, in one pass over both.
//!
//! Memory does not grow with the sizes of files, and with their number only by
//! a few bytes for each changed one, to know its further names.

use super::content::Content;
use super::merged::Merged;
use super::node::Node;
use super::{Expected, MOST_LAYERS};
use crate::world::rootfs::decode::corrupt;
use crate::world::rootfs::entry::{Entry, EntryPath, Kind};
use crate::{Error, Result};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;

/// What a world has under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Its layers say so.
    Here(Inode),
    /// Nothing: it is deleted, or what it would be in is.
    Nothing,
    /// What its base image has there, if anything.
    Image,
}

/// What is under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// What it is, in a word: `file`, `directory`, `symlink`, `hardlink`, `char-device`,
    /// `block-device`, `fifo` or `socket`.
    pub kind: &'static str,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Of a file, in bytes.
    pub size: Option<u64>,
    /// Time of last change: seconds since 1970, and nanoseconds.
    pub mtime: (i64, u32),
    /// Of a symlink; of a hardlink, the file's first name without the leading slash.
    pub target: Option<Vec<u8>>,
    /// Major and minor number of a device.
    pub device: Option<(u32, u32)>,
    /// It is a directory in which the image's content shows.
    pub over_image: bool,
}

/// In what something differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Aspects {
    /// Another kind of thing, or another device.
    pub kind: bool,
    /// Bytes of a file.
    pub content: bool,
    /// Mode.
    pub mode: bool,
    /// Owner or group.
    pub owner: bool,
    /// Time of last change; of a directory it does not count.
    pub time: bool,
    /// Extended attributes.
    pub attributes: bool,
    /// Where a symlink leads.
    pub target: bool,
    /// Which names are the same file. Whether its content differs is then not known.
    pub links: bool,
    /// Whether the image's content shows in a directory.
    pub opaque: bool,
}

impl Aspects {
    /// Whether anything differs.
    pub fn any(&self) -> bool {
        *self != Aspects::default()
    }

    /// In words.
    pub fn names(&self) -> Vec<&'static str> {
        let all = [
            (self.kind, "type"),
            (self.content, "content"),
            (self.mode, "mode"),
            (self.owner, "owner"),
            (self.time, "time"),
            (self.attributes, "attributes"),
            (self.target, "target"),
            (self.links, "links"),
            (self.opaque, "opaque"),
        ];
        let differing = all.into_iter().filter(|(differs, _)| *differs);
        differing.map(|(_, name)| name).collect()
    }
}

/// A name under which two worlds have not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path in the container without the leading slash; the root is empty.
    pub path: Vec<u8>,
    /// In the first world.
    pub before: Seen,
    /// In the second.
    pub after: Seen,
    /// In what they differ, where both worlds' layers have something.
    pub aspects: Aspects,
}

/// The layers of a world.
pub struct Layers<'a, R> {
    /// The lowest first; none for a world without a rootfs.
    pub layers: &'a mut [R],
    /// What they have to give.
    pub expected: Expected,
    /// What the world is called in errors.
    pub name: String,
}

/// Hands over what differs, in the order of the paths.
///
/// # Errors
/// `CorruptWorld` if the layers are damaged or hostile, and the errors of `each`.
pub fn changes<R: Read>(
    before: Layers<'_, R>,
    after: Layers<'_, R>,
    each: &mut dyn FnMut(Change) -> Result<()>,
) -> Result<()> {
    let mut comparison = Comparison {
        before: Side::open(before)?,
        after: Side::open(after)?,
        changed: HashMap::new(),
        hasher: RandomState::new(),
    };
    while let Some(change) = comparison.step()? {
        if let Some(change) = change {
            each(change)?;
        }
    }
    comparison.before.finish()?;
    comparison.after.finish()
}

/// One of the worlds.
struct Side<'a, R: Read> {
    merged: Merged<&'a mut R>,
    head: Option<Node>,
    /// The outermost path inside which the image does not show.
    hidden: Option<EntryPath>,
    budget: u64,
    name: String,
}

impl<'a, R: Read> Side<'a, R> {
    fn open(layers: Layers<'a, R>) -> Result<Side<'a, R>> {
        let Layers {
            layers,
            expected,
            name,
        } = layers;
        if layers.len() > MOST_LAYERS {
            return Err(corrupt("the rootfs has too many layers").within(name));
        }
        let budget = expected.budget();
        let mut side = Side {
            merged: Merged::new(layers, budget)?,
            head: None,
            hidden: None,
            budget,
            name,
        };
        side.advance()?;
        Ok(side)
    }

    fn advance(&mut self) -> Result<()> {
        let next = self.merged.next();
        self.head = next.map_err(|error| error.within(&self.name))?;
        Ok(())
    }

    /// The node at `path`, if there is one, and what that means.
    fn take(&mut self, path: &EntryPath) -> (Option<Node>, Seen) {
        self.hidden.take_if(|outer| !path.is_inside(outer));
        let node = self.head.take_if(|node| node.entry.path == *path);
        let seen = match &node {
            Some(node) if is_deleted(node) => Seen::Nothing,
            Some(node) => {
                let over_image = node.is_dir() && !node.opaque && self.hidden.is_none();
                Seen::Here(inode(&node.entry, over_image))
            }
            None if self.hidden.is_some() => Seen::Nothing,
            None => Seen::Image,
        };
        if let Some(node) = &node
            && (!node.is_dir() || node.opaque)
        {
            self.hidden.get_or_insert_with(|| path.clone());
        }
        (node, seen)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<()> {
        let read = self.merged.read_data(buffer);
        read.map_err(|error| error.within(&self.name))
    }

    fn finish(&self) -> Result<()> {
        match self.merged.size() > self.budget {
            true => Err(self.corrupt("the rootfs layers hold more than they may")),
            false => Ok(()),
        }
    }

    fn corrupt(&self, text: &str) -> Error {
        corrupt(text).within(&self.name)
    }
}

struct Comparison<'a, R: Read> {
    before: Side<'a, R>,
    after: Side<'a, R>,
    /// Files that differ under their first names, by the hash of these. A false
    /// match, which takes 2^32 files, tells of a file that did not change.
    changed: HashMap<u64, Aspects>,
    hasher: RandomState,
}

impl<R: Read> Comparison<'_, R> {
    /// Compares the next name; nothing after the last one.
    fn step(&mut self) -> Result<Option<Option<Change>>> {
        let path = match (&self.before.head, &self.after.head) {
            (None, None) => return Ok(None),
            (Some(only), None) | (None, Some(only)) => &only.entry.path,
            (Some(before), Some(after)) => match before.entry.path.order(&after.entry.path) {
                Ordering::Greater => &after.entry.path,
                _ => &before.entry.path,
            },
        };
        let path = path.clone();
        let (old, before) = self.before.take(&path);
        let (new, after) = self.after.take(&path);
        let aspects = match (&old, &new) {
            (Some(old), Some(new)) if !is_deleted(old) && !is_deleted(new) => {
                self.compare(old, new)?
            }
            _ => Aspects::default(),
        };
        if old.is_some() {
            self.before.advance()?;
        }
        if new.is_some() {
            self.after.advance()?;
        }
        let differs = match (&before, &after) {
            (Seen::Here(_), Seen::Here(_)) => aspects.any(),
            (before, after) => before != after,
        };
        Ok(Some(differs.then_some(Change {
            path: path.0,
            before,
            after,
            aspects,
        })))
    }

    fn compare(&mut self, old: &Node, new: &Node) -> Result<Aspects> {
        let (before, after) = (&old.entry, &new.entry);
        match (&before.kind, &after.kind) {
            (Kind::Hardlink { target: first }, Kind::Hardlink { target: second })
                if first == second =>
            {
                let hash = self.hasher.hash_one(&first.0);
                return Ok(self.changed.get(&hash).copied().unwrap_or_default());
            }
            (Kind::Hardlink { .. }, Kind::Hardlink { .. } | Kind::File { .. })
            | (Kind::File { .. }, Kind::Hardlink { .. }) => {
                return Ok(Aspects {
                    links: true,
                    ..Aspects::default()
                });
            }
            _ => {}
        }
        let mut aspects = metadata(old, new);
        if let (Kind::File { .. }, Kind::File { .. }) = (&before.kind, &after.kind) {
            aspects.content = self.content_differs(before, after)?;
        }
        if aspects.any() && !new.is_dir() {
            let hash = self.hasher.hash_one(&after.path.0);
            self.changed.insert(hash, aspects);
        }
        Ok(aspects)
    }

    fn content_differs(&mut self, before: &Entry, after: &Entry) -> Result<bool> {
        let (Some(mut old), Some(mut new)) = (Content::of(before), Content::of(after)) else {
            return Ok(false);
        };
        if old.size() != new.size() {
            return Ok(true);
        }
        while let Some(length) = old.step(&new) {
            let before = old.read(length, |buffer| self.before.read(buffer))?;
            let after = new.read(length, |buffer| self.after.read(buffer))?;
            if before != after {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn is_deleted(node: &Node) -> bool {
    node.entry.kind == Kind::Whiteout
}

fn metadata(old: &Node, new: &Node) -> Aspects {
    let (before, after) = (&old.entry, &new.entry);
    if word(&before.kind) != word(&after.kind) {
        return Aspects {
            kind: true,
            ..Aspects::default()
        };
    }
    let (was, is) = (&before.meta, &after.meta);
    let same_device = match (&before.kind, &after.kind) {
        (Kind::CharDevice(was), Kind::CharDevice(is))
        | (Kind::BlockDevice(was), Kind::BlockDevice(is)) => was == is,
        _ => true,
    };
    Aspects {
        kind: !same_device,
        mode: was.mode != is.mode,
        owner: (was.uid, was.gid) != (is.uid, is.gid),
        time: was.mtime != is.mtime && !new.is_dir(),
        attributes: was.xattrs != is.xattrs,
        target: matches!(before.kind, Kind::Symlink { .. }) && before.kind != after.kind,
        opaque: old.opaque != new.opaque,
        ..Aspects::default()
    }
}

fn inode(entry: &Entry, over_image: bool) -> Inode {
    let meta = &entry.meta;
    Inode {
        kind: word(&entry.kind),
        mode: meta.mode,
        uid: meta.uid,
        gid: meta.gid,
        size: match entry.kind {
            Kind::File { size, .. } => Some(size),
            _ => None,
        },
        mtime: (meta.mtime.seconds, meta.mtime.nanos),
        target: match &entry.kind {
            Kind::Symlink { target } => Some(target.clone()),
            Kind::Hardlink { target } => Some(target.0.clone()),
            _ => None,
        },
        device: match entry.kind {
            Kind::CharDevice(device) | Kind::BlockDevice(device) => {
                Some((device.major, device.minor))
            }
            _ => None,
        },
        over_image,
    }
}

fn word(kind: &Kind) -> &'static str {
    match kind {
        Kind::Directory | Kind::Opaque => "directory",
        Kind::File { .. } => "file",
        Kind::Symlink { .. } => "symlink",
        Kind::Hardlink { .. } => "hardlink",
        Kind::CharDevice(_) => "char-device",
        Kind::BlockDevice(_) => "block-device",
        Kind::Fifo => "fifo",
        Kind::Socket => "socket",
        Kind::Whiteout | Kind::Removed => "nothing",
    }
}
