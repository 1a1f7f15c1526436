//! Random containers that live on and are checkpointed again and again.

use super::oci::{Rootfs, Seen};
use super::tree::{Body, Item, Tree, at, meta, text};
use super::*;
use crate::world::rootfs::entry::EntryPath;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// What a container does to its files.
#[derive(Debug, Clone)]
struct Edit {
    place: Index,
    other: Index,
    name: Vec<u8>,
    seed: u8,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Make(Body),
    MakeDir,
    Write,
    Change,
    Link,
    Remove,
    Rename,
}

fn edits(most: usize) -> impl Strategy<Value = Vec<Edit>> {
    let edit = (any::<Index>(), any::<Index>(), name(), 0u8..4, what());
    let edit = edit.prop_map(|(place, other, name, seed, what)| Edit {
        place,
        other,
        name,
        seed,
        what,
    });
    vec(edit, 0..most)
}

/// Few, so that they meet again; around the separator in order.
fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => Just(b"a".to_vec()),
        2 => Just(b"b".to_vec()),
        1 => Just(b"a!".to_vec()),
        1 => Just(b"a.".to_vec()),
        1 => Just(b"\xff\n".to_vec()),
        1 => Just(vec![b'l'; 200]),
    ]
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        4 => (0u8..4).prop_map(text),
        1 => (0u8..4, 1u64..2000).prop_map(|(seed, size)| Body::File { seed, size, segments: None }),
        1 => (0u8..4, 0u64..3).prop_map(|(seed, hole)| Body::File {
            seed,
            size: 9000,
            segments: Some(vec![(0, 10), (4096 + hole, 700)]),
        }),
        1 => prop_oneof![Just(1usize), Just(150)].prop_map(|n| Body::Symlink(vec![b't'; n])),
        1 => Just(Body::Fifo),
        1 => Just(Body::Socket),
        1 => (any::<bool>(), 1u32..3).prop_map(|(block, minor)| Body::Device { block, major: 8, minor }),
    ]
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        4 => body().prop_map(What::Make),
        4 => Just(What::MakeDir),
        3 => Just(What::Write),
        2 => Just(What::Change),
        2 => Just(What::Link),
        4 => Just(What::Remove),
        2 => Just(What::Rename),
    ]
}

/// A container: its image, and the upper directory as overlayfs keeps it.
struct Container {
    image: Tree,
    upper: Tree,
    /// Some kernels and mount options make new directories opaque, although
    /// there is nothing to hide, wherever the image could have something.
    eager: bool,
}

impl Container {
    fn new(image: &Tree, eager: bool) -> Container {
        Container {
            image: image.clone(),
            upper: Tree::new(),
            eager,
        }
    }

    /// What the image has under a path, if its layers are still looked into.
    fn below(&self, path: &[u8]) -> Option<&Item> {
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        for end in slashes.map(|(end, _)| end).chain([0]) {
            let above = self.upper.get(&path[..end]);
            if let Some(Item::Dir { opaque: true, .. } | Item::Inode(_) | Item::Whiteout) = above {
                return None;
            }
        }
        self.image.get(path)
    }

    /// What the container sees under a path.
    fn sees(&self, path: &[u8]) -> Option<&Item> {
        match self.upper.get(path) {
            Some(Item::Whiteout) => None,
            Some(item) => Some(item),
            None => self.below(path),
        }
    }

    fn all(&self, mut wanted: impl FnMut(&Item) -> bool) -> Vec<Vec<u8>> {
        let mut paths = [self.upper.paths(), self.image.paths()].concat();
        paths.sort();
        paths.dedup();
        paths.retain(|path| self.sees(path).is_some_and(&mut wanted));
        paths
    }

    /// Brings a directory and those around it into the upper directory.
    fn copy_up_dirs(&mut self, path: &[u8]) {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        for end in ends.map(|(end, _)| end).chain([path.len()]) {
            if self.upper.get(&path[..end]).is_none() {
                let item = self.image.get(&path[..end]).expect("a directory").clone();
                self.upper.put(&path[..end], item);
            }
        }
    }

    fn copy_up(&mut self, path: &[u8]) {
        let dir = EntryPath(path.to_vec()).split().0.to_vec();
        self.copy_up_dirs(&dir);
        if self.upper.get(path).is_none() {
            match self.below(path).expect("something to copy").clone() {
                Item::Inode(_) => {
                    let (body, meta) = self.image.inode(path).expect("a file").clone();
                    self.upper.add(path, body, meta);
                }
                item => self.upper.put(path, item),
            }
        }
    }

    fn remove(&mut self, path: &[u8]) {
        self.copy_up_dirs(EntryPath(path.to_vec()).split().0);
        let below = self.below(path).is_some();
        self.upper.remove(path);
        if below {
            self.upper.put(path, Item::Whiteout);
        }
    }

    fn edit(&mut self, edit: &Edit) {
        let dirs = self.all(|item| matches!(item, Item::Dir { .. }));
        let files = self.all(|item| matches!(item, Item::Inode(_)));
        let dir = edit.place.get(&dirs);
        let new = EntryPath(dir.clone()).join(&edit.name).0;
        let makes = !matches!(edit.what, What::Write | What::Change | What::Remove);
        let needs_file = matches!(edit.what, What::Write | What::Link | What::Rename);
        if (makes && self.sees(&new).is_some()) || (needs_file && files.is_empty()) {
            return;
        }
        match &edit.what {
            What::Make(body) => {
                self.copy_up_dirs(dir);
                let seconds = i64::from(edit.seed);
                let mut meta = meta(0o644);
                meta.mtime = at(seconds, 5);
                self.upper.remove(&new);
                self.upper.add(&new, body.clone(), meta);
            }
            What::MakeDir => {
                self.copy_up_dirs(dir);
                let merged = self.below(dir).is_some()
                    && !matches!(self.upper.get(dir), Some(Item::Dir { opaque: true, .. }));
                let opaque = self.upper.get(&new).is_some() || (self.eager && merged);
                let meta = meta(0o755);
                self.upper.put(&new, Item::Dir { meta, opaque });
            }
            What::Write => {
                let path = edit.other.get(&files);
                self.copy_up(path);
                self.upper.inode_mut(path).expect("a file").0 = text(edit.seed);
            }
            What::Change => {
                let paths = self.all(|_| true);
                let path = edit.other.get(&paths);
                self.copy_up(path);
                let path = String::from_utf8_lossy(path);
                if self.upper.get(path.as_bytes()).is_some() {
                    let uid = u32::from(edit.seed);
                    self.upper = std::mem::take(&mut self.upper).with_meta(&path, |m| m.uid = uid);
                }
            }
            What::Link => {
                let path = edit.other.get(&files);
                self.copy_up(path);
                self.copy_up_dirs(dir);
                let item = self.upper.get(path).expect("a file").clone();
                self.upper.put(&new, item);
            }
            What::Remove => {
                let mut paths = self.all(|_| true);
                paths.retain(|path| !path.is_empty());
                if !paths.is_empty() {
                    let path = edit.other.get(&paths).clone();
                    self.remove(&path);
                }
            }
            What::Rename => {
                let path = edit.other.get(&files);
                self.copy_up(path);
                self.copy_up_dirs(dir);
                let item = self.upper.get(path).expect("a file").clone();
                self.upper.put(&new, item);
                self.remove(path);
            }
        }
    }
}

/// An image: whatever could also be in an upper directory, without marks.
fn image() -> impl Strategy<Value = Tree> {
    edits(12).prop_map(|edits| {
        let mut container = Container::new(&Tree::default(), false);
        for edit in edits {
            container.edit(&edit);
        }
        let mut image = Tree::new();
        for path in container.upper.paths() {
            match container.upper.get(&path) {
                Some(Item::Inode(_)) => {
                    let (body, meta) = container.upper.inode(&path).unwrap().clone();
                    image.add(&path, body, meta);
                }
                Some(Item::Dir { meta, .. }) => {
                    let (meta, opaque) = (meta.clone(), false);
                    image.put(&path, Item::Dir { meta, opaque });
                }
                _ => {}
            }
        }
        image
    })
}

/// What an ordinary runtime makes of the image and these layers.
fn applied(image: &[u8], layers: &[Vec<u8>]) -> Vec<Seen> {
    let plain: Vec<_> = layers.iter().map(|layer| unpacked(layer)).collect();
    Rootfs::of([image].into_iter().chain(plain.iter().map(Vec::as_slice))).seen()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// A container's whole life, as its worlds tell it: the layers give each
    /// `rootfs.tar` byte for byte, and an OCI runtime the container's files.
    #[test]
    fn a_lineage_comes_back(image in image(), lives in vec(edits(14), 2..11), eager: bool) {
        let mut container = Container::new(&image, eager);
        let image = image.tar();
        let mut layers: Vec<Vec<u8>> = Vec::new();
        for life in lives {
            for edit in &life {
                container.edit(edit);
            }
            let tar = container.upper.tar();
            layers = match layers.is_empty() {
                true => vec![full(&tar)],
                false => layers_within(&tar, &layers, u64::MAX).expect("as overlayfs does"),
            };
            prop_assert!(merged(&layers, &tar).expect("merge") == tar);
            let seen = applied(&image, &layers);
            prop_assert!(seen == applied(&image, &[full(&tar)]));
        }
    }

    /// Any two trees, related or not: a delta is right or is not made, and
    /// never has to be thrown away because it was wrong.
    #[test]
    fn any_two_trees(one in edits(30), two in edits(30), marks in vec((any::<Index>(), 0..3), 0..6)) {
        let mut trees = [one, two].map(|edits| {
            let mut container = Container::new(&Tree::default(), false);
            edits.iter().for_each(|edit| container.edit(edit));
            container.upper
        });
        for (place, mark) in marks {
            for tree in &mut trees {
                let paths = tree.paths();
                let path = place.get(&paths).clone();
                match (tree.get(&path).cloned(), mark) {
                    (Some(Item::Dir { meta, opaque }), 0) => {
                        tree.put(&path, Item::Dir { meta, opaque: !opaque });
                    }
                    (_, 1) if !path.is_empty() => {
                        tree.remove(&path);
                        tree.put(&path, Item::Whiteout);
                    }
                    _ => {}
                }
            }
        }
        let [one, two] = trees.map(|tree| tree.tar());
        match layers_within(&two, &[full(&one)], u64::MAX) {
            Ok(layers) => prop_assert!(merged(&layers, &two).expect("merge") == two),
            Err(WhyFull::Inexpressible(_)) => {}
            Err(why) => prop_assert!(false, "{why}"),
        }
    }
}
