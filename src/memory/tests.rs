//! Whole worlds of memory into a store and back.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::addresses::Addresses;
use super::check;
use super::images::Images;
use super::index::{Index, MAX_INDEX};
use super::page::PAGE_SIZE;
use super::place::Place;
use super::places::Packed;
use super::sharing::Sharing;
use super::{packer, unpacker};
use crate::criu::pagemap::{Space, pages_file};
use crate::digest::Digest;
use crate::store::{Lease, Store};
use crate::{ErrorKind, Result};

/// All are of one lineage.
const SHARING: Sharing = Sharing {
    origin: Digest::from_bytes([1; 32]),
    all: false,
};

/// A page by number: zero, compressible or random.
fn page(number: u64) -> Vec<u8> {
    let mut page = vec![0; PAGE_SIZE];
    let filled = match number {
        0 => 0,
        _ if number.is_multiple_of(2) => 64,
        _ => PAGE_SIZE,
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.finalize_xof().fill(&mut page[..filled]);
    page
}

/// What a pages file holds.
fn content(pages: &[u64]) -> Vec<u8> {
    let mut content = Vec::with_capacity(pages.len() * PAGE_SIZE);
    for number in pages {
        content.extend_from_slice(&page(*number));
    }
    content
}

/// The pages files of a world by id, as numbers of pages.
type World = BTreeMap<u32, Vec<u64>>;

fn one(pages: impl IntoIterator<Item = u64>) -> World {
    World::from([(1, pages.into_iter().collect())])
}

/// A pagemap: the pages at 0x10000, 7 at a time with a page between.
fn pagemap(id: u32, pages: usize) -> Vec<u8> {
    let mut image = vec![0x19, 0x43, 0x56, 0x54, 0x25, 0x40, 0x08, 0x56];
    let mut put = |fields: &[(u8, u64)]| {
        let mut message = Vec::new();
        for (number, value) in fields {
            message.push(number << 3);
            super::varint::put(&mut message, *value);
        }
        image.extend((message.len() as u32).to_le_bytes());
        image.extend(message);
    };
    put(&[(1, id.into())]);
    for first in (0..pages).step_by(7) {
        let address = (16 + first / 7 * 8) as u64 * PAGE_SIZE as u64;
        let count = (pages - first).min(7) as u64;
        put(&[(1, address), (2, 0), (4, 4), (5, count)]);
    }
    image
}

fn write(world: &World) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (id, pages) in world {
        std::fs::write(dir.path().join(pages_file(*id)), content(pages)).unwrap();
        let name = Space::Process(u64::from(*id) + 100).to_string();
        std::fs::write(dir.path().join(name), pagemap(*id, pages.len())).unwrap();
    }
    std::fs::write(dir.path().join("inventory.img"), "not memory").unwrap();
    dir
}

fn look(dir: &Path) -> Result<Images> {
    let entries = std::fs::read_dir(dir).unwrap();
    let names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let dir = File::open(dir).unwrap();
    Images::look(dir.as_fd(), names.iter().map(String::as_str))
}

struct Lab {
    store: Store,
    _root: TempDir,
}

impl Lab {
    fn new() -> Lab {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("store")).unwrap();
        Lab { store, _root: root }
    }

    fn pack(&self, world: &World) -> (Packed, Lease) {
        self.pack_sharing(world, &SHARING)
    }

    fn pack_sharing(&self, world: &World, sharing: &Sharing) -> (Packed, Lease) {
        let lease = self.store.lease().unwrap();
        let dir = write(world);
        let images = look(dir.path()).unwrap();
        let packed = packer::pack(&images, &lease, sharing, &|_| {}).unwrap();
        (packed, lease)
    }

    fn index(&self, packed: &Packed) -> Index {
        let bytes = self.store.read(&packed.index.digest, MAX_INDEX).unwrap();
        Index::parse(bytes).unwrap()
    }

    fn unpack(&self, packed: &Packed, lease: &Lease) -> Result<TempDir> {
        let out = tempfile::tempdir().unwrap();
        let folder = File::open(out.path()).unwrap();
        unpacker::unpack(&self.index(packed), lease, folder.as_fd(), &|_| {})?;
        Ok(out)
    }

    /// Fails unless what was packed is what it was.
    fn must_come_back(&self, world: &World, packed: &Packed, lease: &Lease) {
        let out = self.unpack(packed, lease).unwrap();
        let found = std::fs::read_dir(out.path()).unwrap().count();
        assert_eq!(found, world.len());
        for (id, pages) in world {
            let read = std::fs::read(out.path().join(pages_file(*id))).unwrap();
            assert!(read == content(pages), "pages-{id}.img");
        }
    }

    fn blob(&self, digest: &Digest) -> std::path::PathBuf {
        self.store.path().join("blobs/sha256").join(digest.hex())
    }
}

#[test]
fn a_world_comes_back_and_every_distinct_page_stands_once() {
    let lab = Lab::new();
    let world = World::from([
        (1, (0..3000).map(|at| at % 1000).collect()),
        (2, vec![]),
        (7, vec![0, 0, 5, 5, 2000]),
    ]);
    let (packed, lease) = lab.pack(&world);
    lab.must_come_back(&world, &packed, &lease);
    assert_eq!(
        (packed.pages, packed.zero_pages, packed.stored_pages),
        (3005, 5, 1000)
    );
    assert_eq!(packed.packs.len(), 1);
    check::verify(&lab.index(&packed), &lab.store, &|_| {}).unwrap();
    let index = lab.index(&packed);
    let found: u64 = index
        .addresses(Space::Process(107))
        .unwrap()
        .map(|(extent, _)| extent.count)
        .sum();
    assert_eq!(found, 5);
}

#[test]
fn an_address_leads_to_its_page() {
    let lab = Lab::new();
    let (packed, _lease) = lab.pack(&one([3, 4, 5, 6, 0, 0, 9, 3, 10]));
    let addresses = Addresses::of(&lab.index(&packed), Space::Process(101)).unwrap();
    let pack = |page| Place::Pack { pack: 0, page };
    assert_eq!(addresses.find(16), Some((pack(0), 4)));
    assert_eq!(addresses.find(18), Some((pack(2), 2)));
    assert_eq!(addresses.find(21), Some((Place::Zero, 1)));
    assert_eq!(addresses.find(22), Some((pack(4), 1)));
    assert_eq!(addresses.find(24), Some((pack(0), 1)));
    assert_eq!(addresses.find(25), Some((pack(5), 1)));
    for none in [0, 15, 23, 26, u64::MAX] {
        assert_eq!(addresses.find(none), None);
    }
}

#[test]
fn packers_work_at_the_same_time() {
    let lab = Lab::new();
    std::thread::scope(|scope| {
        for number in 0..4 {
            let lab = &lab;
            scope.spawn(move || {
                for round in 0..5 {
                    let own = 1000 * (number + 1)..1000 * (number + 1) + 50 * (round + 1);
                    let world = one((1..500).chain(own));
                    let (packed, lease) = lab.pack(&world);
                    lab.must_come_back(&world, &packed, &lease);
                }
            });
        }
    });
}

#[test]
fn strangers_share_only_when_told_to() {
    let lab = Lab::new();
    let world = one(1..100);
    let (own, _lease) = lab.pack(&world);
    let stranger = |all| Sharing {
        origin: Digest::from_bytes([2; 32]),
        all,
    };
    let (apart, _lease) = lab.pack_sharing(&world, &stranger(false));
    // The same pages in the same order are the same pack, though.
    assert_eq!(apart.stored_pages, 99);
    assert_eq!(apart.packs[0].digest, own.packs[0].digest);
    let (together, _lease) = lab.pack_sharing(&one(50..100), &stranger(true));
    assert_eq!(together.stored_pages, 0);
    let (again, _lease) = lab.pack_sharing(&one(50..100), &stranger(false));
    assert_eq!(again.stored_pages, 0, "its own lineage has them by now");
}

#[test]
fn what_is_known_can_be_built_anew() {
    let lab = Lab::new();
    let world = one(1..2000);
    let (packed, lease) = lab.pack(&world);
    let packs: Vec<Digest> = packed.packs.iter().map(|pack| pack.digest).collect();
    let folder = lab.store.path().join(".worldshim/pages");
    for entry in std::fs::read_dir(folder).unwrap() {
        std::fs::write(entry.unwrap().path(), "damaged").unwrap();
    }
    check::forget(&lease).unwrap();
    check::admit(&packs, &lease, &SHARING, &|_| {}).unwrap();
    let (again, _lease) = lab.pack(&world);
    assert_eq!(
        (again.stored_pages, again.index.digest),
        (0, packed.index.digest)
    );
}

#[test]
fn nothing_but_zeros_needs_no_pack() {
    let lab = Lab::new();
    for world in [World::new(), one([]), one([0; 500])] {
        let (packed, lease) = lab.pack(&world);
        assert!(packed.packs.is_empty());
        lab.must_come_back(&world, &packed, &lease);
    }
}

#[test]
fn the_same_memory_has_the_same_digests() {
    let world = one(1..40_000);
    let (lab, other) = (Lab::new(), Lab::new());
    let ((first, lease), (elsewhere, _lease)) = (lab.pack(&world), other.pack(&world));
    let (again, _lease) = lab.pack(&world);
    assert_eq!(first.index.digest, again.index.digest);
    assert_eq!(first.index.digest, elsewhere.index.digest);
    assert_eq!((first.stored_pages, again.stored_pages), (39_999, 0));
    assert_eq!(first.packs.len(), 2);
    assert!(first.packs.iter().all(|pack| pack.new));
    assert!(again.packs.iter().all(|pack| !pack.new));
    lab.must_come_back(&world, &first, &lease);
}

#[test]
fn what_follows_stores_only_what_is_new() {
    let lab = Lab::new();
    let (_first, _lease) = lab.pack(&one(1..3000));
    let world = one((1..3000).map(|at| if at % 100 == 7 { at + 10_000 } else { at }));
    let (second, lease) = lab.pack(&world);
    assert_eq!((second.stored_pages, second.packs.len()), (30, 2));
    lab.must_come_back(&world, &second, &lease);
}

#[test]
fn pages_of_a_pack_that_is_gone_are_stored_again() {
    let lab = Lab::new();
    let world = one(1..100);
    let (first, _lease) = lab.pack(&world);
    std::fs::remove_file(lab.blob(&first.packs[0].digest)).unwrap();
    let (again, lease) = lab.pack(&world);
    assert_eq!(
        (again.stored_pages, again.index.digest),
        (99, first.index.digest)
    );
    lab.must_come_back(&world, &again, &lease);
}

#[test]
fn what_was_fetched_is_believed_once_it_was_read() {
    let (lab, other) = (Lab::new(), Lab::new());
    let world = one(1..100);
    let (packed, _lease) = other.pack(&world);
    let pack = packed.packs[0].digest;
    let lease = lab.store.lease().unwrap();
    lease
        .put(&std::fs::read(other.blob(&pack)).unwrap())
        .unwrap();
    check::admit(&[pack], &lease, &SHARING, &|_| {}).unwrap();
    let (here, lease) = lab.pack(&world);
    assert_eq!(
        (here.stored_pages, here.index.digest),
        (0, packed.index.digest)
    );
    lab.must_come_back(&world, &here, &lease);
}

#[test]
fn a_lying_pack_is_not_admitted() {
    let (lab, other) = (Lab::new(), Lab::new());
    let (packed, _lease) = other.pack(&one(1..100));
    let mut bytes = std::fs::read(other.blob(&packed.packs[0].digest)).unwrap();
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    let lease = lab.store.lease().unwrap();
    let forged = lease.put(&bytes).unwrap().digest;
    let error = check::admit(&[forged], &lease, &SHARING, &|_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CorruptWorld);
    let (here, _lease) = lab.pack(&one(1..100));
    assert_eq!(here.stored_pages, 99);
}

#[test]
fn damage_to_a_pack_is_an_error_that_names_it() {
    let lab = Lab::new();
    let world = one(1..64);
    let (packed, lease) = lab.pack(&world);
    let digest = packed.packs[0].digest;
    let path = lab.blob(&digest);
    let whole = std::fs::read(&path).unwrap();
    let mut damaged: Vec<Option<Vec<u8>>> = vec![None, Some(whole[1..].to_vec())];
    for at in [
        0,
        9,
        70_000,
        whole.len() / 2,
        whole.len() - 50,
        whole.len() - 9,
    ] {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        damaged.push(Some(flipped));
    }
    for bytes in damaged {
        match bytes {
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let verified = check::verify(&lab.index(&packed), &lab.store, &|_| {});
        for error in [
            lab.unpack(&packed, &lease).unwrap_err(),
            verified.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::CorruptWorld, "{error}");
            assert!(error.to_string().contains(&digest.to_string()), "{error}");
        }
    }
}

#[test]
fn images_that_do_not_fit_each_other_are_refused() {
    let world = one(1..10);
    let (map, pages) = (Space::Process(101).to_string(), pages_file(1));
    let cases: [(&str, &[u8]); 4] = [
        (&pages, &[1; PAGE_SIZE * 8]),
        (&pages, &[1; 5000]),
        (&map, b"garbage"),
        (&map, &pagemap(2, 9)),
    ];
    for (name, bytes) in cases {
        let dir = write(&world);
        std::fs::write(dir.path().join(name), bytes).unwrap();
        let error = look(dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CorruptWorld, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

/// Fifty worlds, each with some pages of the one before changed.
fn lineage(pages: u64, changes: u64, fifty: usize) -> (Vec<u64>, Vec<usize>) {
    let lab = Lab::new();
    let mut world: Vec<u64> = (1..=pages).collect();
    let mut next = pages + 1;
    let (mut stored, mut packs) = (Vec::new(), Vec::new());
    let mut sizes = BTreeMap::new();
    for round in 0..fifty as u64 {
        for change in 0..if round == 0 { 0 } else { changes } {
            let at = (round * 7919 + change * 104_729) % pages;
            world[at as usize] = next;
            next += 1;
        }
        let (packed, lease) = lab.pack(&one(world.iter().copied()));
        stored.push(packed.stored_pages);
        packs.push(packed.packs.len());
        let index = lab.index(&packed);
        let needed: u64 = index.packs().iter().map(|pack| u64::from(pack.pages)).sum();
        assert!(
            needed <= 2 * pages,
            "round {round}: {needed} pages for {pages}"
        );
        for pack in &packed.packs {
            sizes.insert(pack.digest, pack.size);
        }
        if round.is_multiple_of(10) {
            lab.must_come_back(&one(world.iter().copied()), &packed, &lease);
            let (again, _lease) = lab.pack(&one(world.iter().copied()));
            assert_eq!(again.index.digest, packed.index.digest);
        }
    }
    (stored, packs)
}

#[test]
fn fifty_worlds_in_a_row_need_few_packs_and_little_dead_weight() {
    let (stored, packs) = lineage(2000, 20, 50);
    assert!(*packs.iter().max().unwrap() <= 10, "{packs:?}");
    assert_eq!(stored[1], 20);
    let later: u64 = stored[1..].iter().sum();
    assert!(later <= 49 * 20 * 5, "{stored:?}");
}

#[test]
fn a_row_of_worlds_that_change_much_is_rewritten_in_time() {
    let (stored, packs) = lineage(300, 150, 30);
    assert!(*packs.iter().max().unwrap() <= 10, "{packs:?}");
    assert!(
        stored.iter().sum::<u64>() <= 300 + 29 * 150 * 2,
        "{stored:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_worlds_come_back(
        worlds in prop::collection::vec(
            prop::collection::btree_map(
                1u32..5, prop::collection::vec(0u64..60, 0..300), 0..3), 1..4),
    ) {
        let lab = Lab::new();
        for world in &worlds {
            let (packed, lease) = lab.pack(world);
            lab.must_come_back(world, &packed, &lease);
        }
    }
}
