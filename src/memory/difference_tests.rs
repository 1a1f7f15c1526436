//! How many pages differ: by hand, and against a model.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;

use proptest::prelude::*;

use super::addresses::Addresses;
use super::difference::{Counts, Difference, Stretch};
use super::images::Images;
use super::index::{Index, MAX_INDEX};
use super::packer;
use super::page::PAGE_SIZE;
use super::sharing::Sharing;
use crate::criu::pagemap::Space;
use crate::digest::Digest;
use crate::store::Store;

/// Pages by number; the content is a number, too: 0 is a page of zeros.
type Pages = BTreeMap<u64, u8>;

fn pages(list: &[(u64, u8)]) -> Pages {
    list.iter().copied().collect()
}

fn pack(store: &Store, pages: &Pages) -> Index {
    let mut map = vec![0x19, 0x43, 0x56, 0x54, 0x25, 0x40, 0x08, 0x56];
    let mut put = |fields: &[(u8, u64)]| {
        let mut message = Vec::new();
        for (number, value) in fields {
            message.push(number << 3);
            super::varint::put(&mut message, *value);
        }
        map.extend((message.len() as u32).to_le_bytes());
        map.extend(message);
    };
    put(&[(1, 1)]);
    let mut content = Vec::new();
    for (number, byte) in pages {
        put(&[(1, number * PAGE_SIZE as u64), (2, 0), (4, 4), (5, 1)]);
        content.resize(content.len() + PAGE_SIZE, *byte);
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("pages-1.img"), content).unwrap();
    std::fs::write(dir.path().join("pagemap-7.img"), map).unwrap();
    let folder = File::open(dir.path()).unwrap();
    let images = Images::look(folder.as_fd(), ["pages-1.img", "pagemap-7.img"]).unwrap();
    let lease = store.lease().unwrap();
    let sharing = Sharing {
        origin: Digest::of(b"one"),
        all: false,
    };
    let packed = packer::pack(&images, &lease, &sharing, &|_| {}).unwrap();
    // The packs stay: nothing sweeps in these tests.
    Index::parse(store.read(&packed.index.digest, MAX_INDEX).unwrap()).unwrap()
}

/// Of pages and stretches, given as start, end and first.
fn count(
    before: (&Pages, Option<[u64; 3]>),
    after: (&Pages, Option<[u64; 3]>),
    zeros: bool,
) -> Counts {
    count_with(before, after, zeros, false)
}

fn count_with(
    before: (&Pages, Option<[u64; 3]>),
    after: (&Pages, Option<[u64; 3]>),
    zeros: bool,
    around: bool,
) -> Counts {
    // Two stores, put together: the same page has other places.
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(&root.path().join("store")).unwrap();
    let other = Store::open(&root.path().join("other")).unwrap();
    let indexes = [pack(&store, before.0), pack(&other, after.0)];
    for blob in std::fs::read_dir(root.path().join("other/blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        let to = root
            .path()
            .join("store/blobs/sha256")
            .join(blob.file_name());
        std::fs::copy(blob.path(), to).unwrap();
    }
    let space = Space::Process(7);
    let addresses = [
        Addresses::of(&indexes[0], space),
        Addresses::of(&indexes[1], space),
    ];
    let stretch = |number: usize, at: Option<[u64; 3]>| {
        at.map(|[start, end, first]| Stretch {
            start,
            end,
            addresses: addresses[number].as_ref(),
            first,
            zeros,
            around: first == start && around,
        })
    };
    let mut difference = Difference::new(&indexes[0], &indexes[1], &store);
    difference
        .count(stretch(0, before.1), stretch(1, after.1))
        .unwrap()
}

#[test]
fn pages_are_told_by_their_content() {
    let before = pages(&[(10, 1), (11, 2), (12, 0), (20, 3)]);
    let after = pages(&[(10, 1), (11, 3), (13, 2), (20, 3)]);
    let at = Some([10, 21, 10]);
    let counts = |before, after, differing| Counts {
        before,
        after,
        differing,
    };
    assert_eq!(count((&before, at), (&after, at), true), counts(3, 4, 2));
    // A file's page is not one of zeros.
    assert_eq!(count((&before, at), (&after, at), false), counts(3, 4, 3));
    assert_eq!(count((&before, at), (&before, at), false), counts(3, 3, 0));
    assert_eq!(count((&before, at), (&after, None), true), counts(3, 0, 3));
    assert_eq!(
        count((&before, None), (&after, None), true),
        counts(0, 0, 0)
    );
    // Another length, and the same memory elsewhere.
    let short = Some([10, 12, 10]);
    assert_eq!(
        count((&before, at), (&before, short), true),
        counts(3, 2, 1)
    );
    let moved = Some([11, 13, 10]);
    assert_eq!(
        count((&before, at), (&before, moved), true),
        counts(3, 2, 4)
    );
}

#[test]
fn of_regions_that_become_one_no_page_differs() {
    let before = pages(&[(10, 1), (11, 2), (12, 3)]);
    let after = pages(&[(10, 1), (11, 2), (12, 4)]);
    let at = |start, end| Some([start, end, start]);
    let count = |old: Option<_>, new: Option<_>| {
        let counts = count_with((&before, old), (&after, new), true, true);
        (counts.before, counts.after, counts.differing)
    };
    // 10-11 and 11-13 become 10-13: a page that differs does so once.
    assert_eq!(count(at(10, 11), at(10, 13)), (1, 3, 1));
    assert_eq!(count(at(11, 13), at(11, 11)), (2, 0, 0));
    // And the other way round.
    assert_eq!(count(at(10, 13), at(10, 11)), (3, 1, 0));
    assert_eq!(count(at(11, 11), at(11, 13)), (0, 2, 1));
}

#[test]
fn stretches_may_be_anywhere() {
    let some = pages(&[(1, 1)]);
    let whole = Some([0, u64::MAX, 0]);
    assert_eq!(count((&some, whole), (&some, whole), true).differing, 0);
    let far = Some([5, 9, u64::MAX - 1]);
    assert_eq!(count((&some, whole), (&some, far), true).differing, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn as_one_by_one(
        before in prop::collection::btree_map(0u64..60, 0u8..4, 0..50),
        after in prop::collection::btree_map(0u64..60, 0u8..4, 0..50),
        one in (0u64..30, 0u64..30), two in (0u64..30, 0u64..30), zeros: bool,
    ) {
        let (one, two) = ((one.0, one.0 + one.1), (two.0, two.0 + two.1));
        let mut model = Counts::default();
        for page in 0..60 {
            // None: no memory; Some(None): a file's page; zeros are 0.
            let at = |pages: &Pages, (start, end): (u64, u64)| {
                let absent = if zeros { Some(0) } else { None };
                (start..end).contains(&page).then(|| pages.get(&page).copied().or(absent))
            };
            let (old, new) = (at(&before, one), at(&after, two));
            let stored = |page: Option<Option<u8>>| page.flatten().unwrap_or(0) > 0;
            model.before += u64::from(stored(old));
            model.after += u64::from(stored(new));
            model.differing += u64::from(match (old, new) {
                (Some(old), Some(new)) => old != new,
                (old, new) => stored(old) || stored(new),
            });
        }
        let counted = count(
            (&before, Some([one.0, one.1, one.0])),
            (&after, Some([two.0, two.1, two.0])),
            zeros,
        );
        prop_assert_eq!(counted, model);
    }
}
