//! A writable layer in memory, and its `rootfs.tar`.

use crate::world::rootfs::entry::{Device, Entry, EntryPath, Kind, Meta, Mtime, Segment};
use crate::world::rootfs::layers::archive::Archive;
use crate::world::rootfs::layers::node::Node;
use std::collections::BTreeMap;

/// What is under one name.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    Dir {
        meta: Meta,
        opaque: bool,
    },
    /// A name of this inode.
    Inode(u32),
    Whiteout,
}

/// What an inode is, apart from its owner and so on.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Where data is, and the file's size; the data is made of the seed.
    File {
        seed: u8,
        size: u64,
        segments: Option<Vec<(u64, u64)>>,
    },
    Symlink(Vec<u8>),
    Device {
        block: bool,
        major: u32,
        minor: u32,
    },
    Fifo,
    Socket,
}

/// Names are kept with NUL for `/`, which is the order of an archive.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    names: BTreeMap<Vec<u8>, Item>,
    inodes: BTreeMap<u32, (Body, Meta)>,
}

pub fn meta(mode: u32) -> Meta {
    Meta {
        mode,
        ..Meta::default()
    }
}

pub fn text(seed: u8) -> Body {
    Body::File {
        seed,
        size: 600,
        segments: None,
    }
}

fn key(path: &[u8]) -> Vec<u8> {
    let swap = |&byte: &u8| if byte == b'/' { 0 } else { byte };
    path.iter().map(swap).collect()
}

fn path(key: &[u8]) -> Vec<u8> {
    let swap = |&byte: &u8| if byte == 0 { b'/' } else { byte };
    key.iter().map(swap).collect()
}

impl Tree {
    /// An empty layer.
    pub fn new() -> Tree {
        let mut tree = Tree::default();
        tree.put(
            b"",
            Item::Dir {
                meta: meta(0o755),
                opaque: false,
            },
        );
        tree
    }

    pub fn get(&self, path: &[u8]) -> Option<&Item> {
        self.names.get(&key(path))
    }

    pub fn inode(&self, path: &[u8]) -> Option<&(Body, Meta)> {
        match self.get(path)? {
            Item::Inode(number) => self.inodes.get(number),
            _ => None,
        }
    }

    pub fn inode_mut(&mut self, path: &[u8]) -> Option<&mut (Body, Meta)> {
        match self.names.get(&key(path))? {
            Item::Inode(number) => self.inodes.get_mut(number),
            _ => None,
        }
    }

    pub fn put(&mut self, path: &[u8], item: Item) {
        self.names.insert(key(path), item);
    }

    /// Removes a name and all below it.
    pub fn remove(&mut self, path: &[u8]) {
        let outer = EntryPath(path.to_vec());
        self.names
            .retain(|name, _| *name != key(path) && !EntryPath(self::path(name)).is_inside(&outer));
    }

    pub fn paths(&self) -> Vec<Vec<u8>> {
        self.names.keys().map(|name| path(name)).collect()
    }

    pub fn dir(mut self, path: &str) -> Tree {
        self.put(
            path.as_bytes(),
            Item::Dir {
                meta: meta(0o755),
                opaque: false,
            },
        );
        self
    }

    pub fn opaque(mut self, path: &str) -> Tree {
        self.put(
            path.as_bytes(),
            Item::Dir {
                meta: meta(0o755),
                opaque: true,
            },
        );
        self
    }

    pub fn whiteout(mut self, path: &str) -> Tree {
        self.put(path.as_bytes(), Item::Whiteout);
        self
    }

    pub fn body(mut self, path: &str, body: Body) -> Tree {
        self.add(path.as_bytes(), body, meta(0o644));
        self
    }

    pub fn file(self, path: &str, seed: u8) -> Tree {
        self.body(path, text(seed))
    }

    pub fn link(mut self, path: &str, to: &str) -> Tree {
        let item = self.get(to.as_bytes()).expect("a file to link to").clone();
        self.put(path.as_bytes(), item);
        self
    }

    pub fn without(mut self, path: &str) -> Tree {
        self.remove(path.as_bytes());
        self
    }

    /// Changes what belongs to a file or directory.
    pub fn with_meta(mut self, path: &str, change: impl FnOnce(&mut Meta)) -> Tree {
        match self.names.get_mut(&key(path.as_bytes())).expect("there") {
            Item::Dir { meta, .. } => change(meta),
            Item::Inode(number) => change(&mut self.inodes.get_mut(number).expect("there").1),
            Item::Whiteout => panic!("a whiteout belongs to nobody"),
        }
        self
    }

    pub fn add(&mut self, path: &[u8], body: Body, meta: Meta) {
        let number = self.inodes.keys().last().map_or(0, |last| last + 1);
        self.inodes.insert(number, (body, meta));
        self.put(path, Item::Inode(number));
    }

    /// Its `rootfs.tar`.
    pub fn tar(&self) -> Vec<u8> {
        let mut archive = Archive::new(Vec::new(), u64::MAX);
        let mut first: BTreeMap<u32, EntryPath> = BTreeMap::new();
        for (name, item) in &self.names {
            let path = EntryPath(path(name));
            let mut opaque = false;
            let (kind, meta, seed) = match item {
                Item::Dir { meta, opaque: mark } => {
                    opaque = *mark;
                    (Kind::Directory, meta.clone(), 0)
                }
                Item::Whiteout => (Kind::Whiteout, Meta::default(), 0),
                Item::Inode(number) => {
                    let (body, meta) = &self.inodes[number];
                    let (kind, seed) = match first.get(number) {
                        Some(target) => (
                            Kind::Hardlink {
                                target: target.clone(),
                            },
                            0,
                        ),
                        None => body.kind(),
                    };
                    first.entry(*number).or_insert_with(|| path.clone());
                    (kind, meta.clone(), seed)
                }
            };
            let entry = Entry { path, kind, meta };
            let node = Node { entry, opaque };
            let fill = |buffer: &mut [u8]| {
                buffer
                    .iter_mut()
                    .zip(0u8..=250)
                    .for_each(|(byte, at)| *byte = at ^ seed);
                buffer[buffer.len() - 1] = seed;
                Ok(())
            };
            archive.node(&node, fill).expect("write a node");
        }
        archive.finish().expect("write an archive")
    }
}

impl Body {
    fn kind(&self) -> (Kind, u8) {
        let kind = match self {
            Body::File { size, segments, .. } => Kind::File {
                size: *size,
                segments: segments.as_ref().map(|list| {
                    let segment = |&(start, len): &(u64, u64)| Segment { start, len };
                    list.iter().map(segment).collect()
                }),
            },
            Body::Symlink(target) => Kind::Symlink {
                target: target.clone(),
            },
            &Body::Device {
                block: true,
                major,
                minor,
            } => Kind::BlockDevice(Device { major, minor }),
            &Body::Device { major, minor, .. } => Kind::CharDevice(Device { major, minor }),
            Body::Fifo => Kind::Fifo,
            Body::Socket => Kind::Socket,
        };
        match self {
            Body::File { seed, .. } => (kind, *seed),
            _ => (kind, 0),
        }
    }
}

/// A time for `Meta`.
pub fn at(seconds: i64, nanos: u32) -> Mtime {
    Mtime { seconds, nanos }
}
