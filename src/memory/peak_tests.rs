//! Packing needs at most 96 MiB, however large the world.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use super::images::Images;
use super::packer;
use super::page::PAGE_SIZE;
use super::sharing::Sharing;
use crate::digest::Digest;
use crate::store::Store;

/// All are of one lineage.
const SHARING: Sharing = Sharing {
    origin: Digest::from_bytes([1; 32]),
    all: false,
};

const PAGES: u64 = 512 << 20 >> 12;
const MOST_KIB: u64 = 96 << 10;
const PLACE: &str = "WORLDSHIM_TEST_PEAK";

#[test]
fn half_a_gigabyte_of_distinct_pages_is_packed_in_96_mib() {
    let dir = tempfile::tempdir().unwrap();
    let file = File::create(dir.path().join("pages-1.img")).unwrap();
    file.set_len(PAGES * PAGE_SIZE as u64).unwrap();
    for page in 0..PAGES {
        let at = page * PAGE_SIZE as u64 + 100;
        file.write_all_at(&(page + 1).to_le_bytes(), at).unwrap();
    }
    // In a process of its own, which does nothing else.
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "memory::peak_tests::in_a_child",
            "--ignored",
            "--nocapture",
        ])
        .env(PLACE, dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let peak = text.lines().find_map(|line| line.strip_prefix("peak KiB "));
    let peak: u64 = peak.expect("its peak").parse().unwrap();
    println!("peak: {peak} KiB");
    assert!(peak <= MOST_KIB, "{peak} KiB");
}

#[test]
#[ignore = "the child of the test above"]
fn in_a_child() {
    let dir = std::env::var(PLACE).unwrap();
    let folder = File::open(&dir).unwrap();
    let images = Images::look(folder.as_fd(), ["pages-1.img"]).unwrap();
    let store = Store::open(&Path::new(&dir).join("store")).unwrap();
    let lease = store.lease().unwrap();
    let packed = packer::pack(&images, &lease, &SHARING, &|_| {}).unwrap();
    assert_eq!((packed.stored_pages, packed.packs.len()), (PAGES, 4));
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak
        .and_then(|text| text.split_whitespace().next())
        .unwrap();
    println!("\npeak KiB {peak}");
}
