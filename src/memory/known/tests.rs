//! What is added is found, whatever becomes of the files.

use super::*;
use proptest::prelude::*;

fn hash(number: u32) -> PageHash {
    PageHash::of(&number.to_le_bytes())
}

fn pack(number: u32) -> Digest {
    Digest::of(&number.to_le_bytes())
}

fn hashes(range: std::ops::Range<u32>) -> Vec<PageHash> {
    range.map(hash).collect()
}

fn open(folder: &tempfile::TempDir) -> Known {
    let folder = File::open(folder.path()).unwrap();
    Known::open(folder.into()).unwrap()
}

fn empty() -> (tempfile::TempDir, Known) {
    let folder = tempfile::tempdir().unwrap();
    let known = open(&folder);
    (folder, known)
}

fn files(known: &Known) -> usize {
    known.numbers().unwrap().len()
}

#[test]
fn pages_are_found_and_others_are_not() {
    let (folder, mut known) = empty();
    known.add(pack(1), &hashes(0..5000), |_| true).unwrap();
    known.add(pack(2), &hashes(5000..5100), |_| true).unwrap();
    for number in 0..5000 {
        let found = known.find(&hash(number)).unwrap();
        assert_eq!(found, [(pack(1), number)]);
    }
    assert_eq!(known.find(&hash(5007)).unwrap(), [(pack(2), 7)]);
    assert!(known.find(&hash(6000)).unwrap().is_empty());
    assert!(known.has(&pack(1)) && !known.has(&pack(3)));
    let again = open(&folder);
    assert_eq!(again.find(&hash(5007)).unwrap(), [(pack(2), 7)]);
}

#[test]
fn the_newest_pack_comes_first_also_when_tables_were_merged() {
    let (_folder, mut known) = empty();
    for number in 1..=40 {
        known.add(pack(number), &hashes(0..10), |_| true).unwrap();
        let found = known.find(&hash(3)).unwrap();
        assert_eq!(found[0], (pack(number), 3));
    }
}

#[test]
fn tables_stay_few() {
    let (_folder, mut known) = empty();
    let mut first = 0;
    for number in 0..200 {
        let count = 1 + number * 7919 % 50;
        known
            .add(pack(number), &hashes(first..first + count), |_| true)
            .unwrap();
        first += count;
        assert!(known.tables() <= 13, "{}", known.tables());
        assert_eq!(known.tables(), files(&known));
    }
    for number in 0..first {
        assert_eq!(known.find(&hash(number)).unwrap().len(), 1);
    }
}

#[test]
fn packs_that_are_gone_are_forgotten() {
    let (_folder, mut known) = empty();
    known.add(pack(1), &hashes(0..10), |_| true).unwrap();
    known
        .add(pack(2), &hashes(10..20), |digest| *digest != pack(1))
        .unwrap();
    assert!(known.find(&hash(3)).unwrap().is_empty());
    assert!(!known.has(&pack(1)) && known.has(&pack(2)));
}

#[test]
fn merging_waits_for_nobody() {
    let (folder, mut known) = empty();
    known.add(pack(1), &hashes(0..10), |_| true).unwrap();
    let other = open(&folder);
    let lock = other.lock().unwrap().unwrap();
    known.add(pack(2), &hashes(10..20), |_| true).unwrap();
    assert_eq!(known.tables(), 2);
    drop(lock);
    known.add(pack(3), &hashes(20..30), |_| true).unwrap();
    assert_eq!(known.tables(), 1);
    assert_eq!(other.find(&hash(3)).unwrap(), [(pack(1), 3)]);
}

#[test]
fn damaged_tables_are_removed_or_harmless() {
    let (folder, mut known) = empty();
    known.add(pack(1), &hashes(0..200), |_| true).unwrap();
    let path = folder.path().join(file_name(known.tables[0].number()));
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(&path, &flipped).unwrap();
        let known = open(&folder);
        for number in 0..200 {
            known.find(&hash(number)).unwrap();
        }
    }
    for length in [0, 10, 24, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let known = open(&folder);
        assert_eq!((known.tables(), files(&known)), (0, 0));
    }
}

#[test]
fn nothing_is_left_of_what_was_cleared() {
    let (_folder, mut known) = empty();
    known.add(pack(1), &hashes(0..10), |_| true).unwrap();
    known.clear().unwrap();
    assert!(known.find(&hash(3)).unwrap().is_empty());
    assert_eq!(files(&known), 0);
}

proptest! {
    #[test]
    fn garbage_never_panics(mut bytes: Vec<u8>, packs in 0u32..3, bits in 0u32..4, pages in 0u64..9) {
        bytes.extend(packs.to_le_bytes());
        bytes.extend(bits.to_le_bytes());
        bytes.extend(pages.to_le_bytes());
        bytes.extend(b"wsknown1");
        let file = tempfile::tempfile().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
        if let Ok(table) = Table::open(file, 1) {
            for number in 0..50 {
                table.find(hash(number).prefix()).unwrap();
            }
        }
    }
}
