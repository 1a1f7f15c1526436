//! Every blob of a stored world, damaged in every way: one clear error, and no
//! container made.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use super::verbs::World;
use crate::common::container::Container;
use crate::common::ctr;
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![shared("damage_is_one_error", matrix)]
}

/// Damages a blob.
type Damage = fn(&Path);

/// What is done to a blob.
const DAMAGE: [(&str, Damage); 6] = [
    ("a bit flipped at the start", |path| flip(path, 0, 1)),
    ("a bit flipped in the middle", |path| flip(path, 1, 2)),
    ("a bit flipped at the end", |path| flip(path, 1, 1)),
    ("cut in half", |path| {
        let size = fs::metadata(path).expect("a blob").len();
        let file = fs::File::options().write(true).open(path).expect("a blob");
        file.set_len(size / 2).expect("cut");
    }),
    ("longer", |path| {
        let mut bytes = fs::read(path).expect("a blob");
        bytes.extend([0; 512]);
        fs::write(path, bytes).expect("write");
    }),
    ("gone", |path| fs::remove_file(path).expect("remove")),
];

/// Flips a bit at `part / of` of the file.
fn flip(path: &Path, part: usize, of: usize) {
    let mut bytes = fs::read(path).expect("a blob");
    let at = (bytes.len() * part / of).min(bytes.len() - 1);
    bytes[at] ^= 4;
    fs::write(path, bytes).expect("write");
}

fn matrix(test: &Test) {
    let world = World::new(test);
    let container = Container::counter(test, "a", &[]);
    container.exec(&["sh", "-c", "echo x >/file"]);
    world.checkpoint(&container.id, "x:1");
    container.exec(&["sh", "-c", "echo y >/file2"]);
    let digest = world.checkpoint(&container.id, "x:2");
    let inspected = world.json(&["inspect", "x:2"]);
    let mut digests: Vec<String> = inspected["blobs"]
        .as_array()
        .expect("blobs")
        .iter()
        .map(|blob| blob["digest"].as_str().expect("a digest").to_owned())
        .collect();
    digests.push(digest);
    let (id, count) = (test.id("b"), container.count());
    for digest in &digests {
        let blob: PathBuf = world.store.join("blobs/sha256").join(&digest[7..]);
        let whole = fs::read(&blob).expect("a blob");
        for (what, damage) in DAMAGE {
            damage(&blob);
            let said = fails(&world, &["verify", "x:2"], what, digest);
            assert!(!said.contains("panicked"), "{said}");
            let restored = world.run(&["restore", "x:2", "--id", &id]);
            match restored.status.success() {
                // What is damaged was not needed: then all is as it was.
                true => {
                    let back = Container { id: id.clone() };
                    back.goes_on_from(count - 2);
                    back.remove();
                }
                false => {
                    one_error(&restored, what, digest);
                    assert_eq!(ctr::status(&id), None, "{what} of {digest}");
                }
            }
            fails(&world, &["fsck"], what, digest);
            fs::write(&blob, &whole).expect("mend");
        }
    }
    assert!(!ctr::ok(&["container", "ls", "-q"]).contains(&id));
    world.json(&["verify", "x:2"]);
    world.json(&["restore", "x:2", "--id", &id]);
}

/// One line on stderr, and the exit status of damage.
#[track_caller]
fn fails(world: &World, arguments: &[&str], what: &str, digest: &str) -> String {
    let output = world.run(arguments);
    one_error(&output, what, digest)
}

#[track_caller]
fn one_error(output: &Output, what: &str, digest: &str) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // A blob that is gone is not found.
    let status = output.status.code();
    let told = status == Some(6) || status == Some(3);
    assert!(told, "{what} of {digest}: {status:?}: {said}");
    let lines = said.trim_end().lines().count();
    assert_eq!(lines, 1, "{what} of {digest}: {said}");
    said
}
