//! The life of a store's user: publishes, reads, tags, removes and sweeps at random. Worlds
//! share layers, so that one user's sweep meets what another is about to need.

use std::io::Write;

use worldshim::ErrorKind;
use worldshim::digest::Digest;
use worldshim::store::{Document, GcOptions, Store};

use crate::common::{manifest, name, reference};

const LAYERS: u64 = 24;
const MAX_LAYER: usize = 40_000;

/// Numbers that look random (SplitMix64).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// One user. What it says is what it relies on: `published NAME DIGEST`, `removing NAME`.
pub struct User<W: Write> {
    pub id: u64,
    pub numbers: Numbers,
    pub says: W,
    pub published: Vec<String>,
}

impl<W: Write> User<W> {
    pub fn new(id: u64, seed: u64, says: W) -> User<W> {
        User {
            id,
            numbers: Numbers(seed),
            says,
            published: Vec::new(),
        }
    }

    pub fn step(&mut self, store: &Store) {
        match self.numbers.below(10) {
            0..4 => self.publish(store),
            4..7 => self.read(store),
            7 => self.remove(store),
            _ => {
                let swept = store.gc(&GcOptions::default());
                swept.expect("a sweep");
            }
        }
    }

    fn publish(&mut self, store: &Store) {
        let layers: Vec<_> = (0..=self.numbers.below(4))
            .map(|_| {
                let layer = self.numbers.below(LAYERS);
                let size = 1 + (layer as usize * 7919) % MAX_LAYER;
                format!("{layer:05}").repeat(size / 5 + 1)
            })
            .collect();
        let layers: Vec<_> = layers.iter().map(String::as_str).collect();
        let called = format!("u{}-{}", self.id, self.numbers.below(12));
        let lease = store.lease().expect("a lease");
        let manifest = manifest(&lease, &layers);
        // A name that moves is for no world until it is for the next.
        self.say(&format!("removing {called}"));
        let published = store
            .publish(&lease, &manifest, &Default::default(), Some(&name(&called)))
            .expect("publish");
        self.say(&format!("published {called} {}", published.digest));
        self.published.push(called);
    }

    fn remove(&mut self, store: &Store) {
        let Some(called) = self.published.pop() else {
            return;
        };
        self.say(&format!("removing {called}"));
        match store.remove(&reference(&called), true) {
            Ok(_) => {}
            // Published twice, removed once.
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
        }
    }

    /// Whatever is held is there to the last byte.
    fn read(&mut self, store: &Store) {
        let worlds = store.list().expect("a list");
        if worlds.is_empty() {
            return;
        }
        let chosen = worlds[self.numbers.below(worlds.len() as u64) as usize].digest;
        let lease = store.lease().expect("a lease");
        match lease.hold_world(&chosen) {
            Ok(()) => read_whole(store, &chosen),
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
        }
    }

    fn say(&mut self, what: &str) {
        let line = format!("{what}\n");
        self.says.write_all(line.as_bytes()).expect("say");
    }
}

/// Reads a world and checks every digest.
pub fn read_whole(store: &Store, world: &Digest) {
    let Document::Manifest(manifest) = store.document(world).expect("a manifest") else {
        panic!("{world} is no manifest");
    };
    for part in manifest.layers().iter().chain([manifest.config()]) {
        let digest = part.digest().to_string().parse().expect("a digest");
        store.read(&digest, 2 * MAX_LAYER).expect("a whole blob");
    }
}
