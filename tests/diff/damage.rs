//! A damaged world makes one clear error, or a diff where the damage is in what it needs not.

use std::fs;
use std::path::Path;

use crate::common::container::Container;
use crate::common::suite::{Case, Test, shared};
use crate::world::{checkpoint, ok, run};

pub fn cases() -> Vec<Case> {
    vec![shared("damage_anywhere_is_told_or_does_no_harm", damage)]
}

/// Exit status of a damaged world, of one of another kind, and of a blob that is missing.
const TOLD: [i32; 3] = [6, 7, 3];

fn damage(test: &Test) {
    let container = Container::counter(test, "a", &[]);
    checkpoint(test, &container, "w:1");
    checkpoint(test, &container, "w:2");
    let whole = ok(test, &["diff", "w:1", "w:2"]);
    assert!(whole.contains("/count"), "{whole}");
    let mut told = 0;
    let blobs = fs::read_dir(test.path("store/blobs/sha256")).expect("blobs");
    for blob in blobs {
        let path = blob.expect("a blob").path();
        let bytes = fs::read(&path).expect("read a blob");
        for at in [0, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x20;
            told += u32::from(is_told(test, &path, &flipped));
        }
        told += u32::from(is_told(test, &path, &bytes[..bytes.len() / 2]));
        fs::remove_file(&path).expect("remove a blob");
        told += u32::from(is_told_now(test, &path));
        fs::write(&path, &bytes).expect("write a blob");
    }
    assert!(told > 30, "only {told} were told");
    assert_eq!(ok(test, &["diff", "w:1", "w:2"]), whole);
}

fn is_told(test: &Test, path: &Path, bytes: &[u8]) -> bool {
    fs::write(path, bytes).expect("write a blob");
    is_told_now(test, path)
}

fn is_told_now(test: &Test, path: &Path) -> bool {
    let output = run(test, &["diff", "w:1", "w:2"]);
    let said = String::from_utf8_lossy(&output.stderr);
    let status = output.status.code().expect("an end without a signal");
    if status == 0 {
        return false;
    }
    assert!(
        TOLD.contains(&status),
        "{}: {status} {said}",
        path.display()
    );
    assert_eq!(said.lines().count(), 1, "{}: {said}", path.display());
    assert!(output.stdout.is_empty(), "{}", path.display());
    true
}
