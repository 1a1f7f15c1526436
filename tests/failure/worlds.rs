//! Corrupt, truncated, foreign and hostile world directories, through containerd:
//! one clear error each, before anything on the host has changed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use worldshim::digest::Digest;
use worldshim::world::checksum::sealed;

use crate::common::container::Container;
use crate::common::ctr::{self, BUSYBOX, PYTHON};
use crate::common::leftovers::Leftovers;
use crate::common::rpc::{Containerd, Streams};
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("worlds_that_are_damaged_or_hostile", hostile),
        shared("world_over_another_image", other_image),
    ]
}

type Spoil = fn(&Path);
type Forge = fn(&mut Value);

/// What is done to a world, and words of the error.
const DAMAGE: [(&str, Spoil, &str); 13] = [
    (
        "no manifest",
        |w| remove(w, "world.json"),
        "there is no world.json",
    ),
    (
        "empty manifest",
        |w| write(w, "world.json", ""),
        "world.json",
    ),
    ("cut manifest", cut_manifest, "world.json"),
    ("manifest edited by hand", edited_by_hand, "world.json"),
    ("flipped bit", flipped_bit, "pages-1.img is damaged"),
    ("cut image", cut_image, "pages-1.img is"),
    (
        "missing part",
        |w| remove(w, "inventory.img"),
        "inventory.img is missing",
    ),
    (
        "unlisted file",
        |w| write(w, "extra.img", "x"),
        "extra.img does not belong",
    ),
    ("symlink", image_is_symlink, "pages-1.img"),
    (
        "directory",
        |w| fs::create_dir(w.join("sub")).expect("a directory"),
        "sub",
    ),
    (
        "newer format",
        |w| reseal(w, |m| m["format"] = json!(999)),
        "999",
    ),
    (
        "another processor",
        |w| reseal(w, |m| m["host"]["arch"] = json!("vax")),
        "vax",
    ),
    ("missing CPU feature", |w| reseal(w, add_feature), "avx1024"),
];

/// Manifests whose checksum fits, with hostile contents.
const FORGED: [(&str, Forge); 5] = [
    ("path that climbs", |m| {
        m["parts"][0]["files"][0]["name"] = json!("../../etc/passwd")
    }),
    ("absolute path", |m| {
        m["parts"][0]["files"][0]["name"] = json!("/etc/passwd")
    }),
    ("giant size", |m| {
        m["parts"][0]["files"][0]["size"] = json!(u64::MAX)
    }),
    ("giant count", |m| {
        let file = m["parts"][0]["files"][0].clone();
        m["parts"][0]["files"] = Value::Array(vec![file; 200_000]);
    }),
    ("wrong digest", |m| {
        m["parts"][0]["files"][0]["sha256"] = json!(Digest::of(b"other").to_string())
    }),
];

fn hostile(test: &Test) {
    let original = Container::counter(test, "a", &[]);
    let world = original.checkpoint_to(test, "world");
    let clone = Container::create(test, "b", &[], BUSYBOX, &["sh"]);
    let copy = test.path("copy");
    for (what, spoil, words) in DAMAGE {
        copy_of(&world, &copy);
        spoil(&copy);
        let said = refused(&clone, &copy, what);
        assert!(said.contains(words), "{what}: {said}");
    }
    for (what, forge) in FORGED {
        copy_of(&world, &copy);
        reseal(&copy, forge);
        refused(&clone, &copy, what);
    }
    // The whole world still suits that very container.
    clone.start(Some(&world), &Streams::default());
    clone.counts_past(0);
    original.counts_past(original.count());
}

fn other_image(test: &Test) {
    let original = Container::counter(test, "a", &[]);
    let world = original.checkpoint_to(test, "world");
    let clone = Container::create(test, "b", &[], PYTHON, &["python3"]);
    let said = refused(&clone, &world, "another image");
    assert!(said.contains("layers"), "{said}");
}

/// Create fails with one short sentence and leaves nothing.
fn refused(clone: &Container, world: &Path, what: &str) -> String {
    let before = Leftovers::of(&clone.id);
    let Err(error) = Containerd::connect().create(&clone.id, Some(world), &Streams::default())
    else {
        panic!("{what}: accepted");
    };
    let said = error.message().to_owned();
    assert!(!said.contains('\n') && said.len() < 1000, "{what}: {said}");
    assert_eq!(ctr::status(&clone.id), None, "{what}");
    let left = crate::common::leftovers::settled(|| Leftovers::of(&clone.id).beyond(&before));
    assert!(left.is_empty(), "{what}: left behind:\n{left}");
    said
}

fn copy_of(world: &Path, copy: &Path) {
    let _ = fs::remove_dir_all(copy);
    let copied = Command::new("cp").arg("-a").args([world, copy]).status();
    assert!(copied.is_ok_and(|status| status.success()), "copy a world");
}

fn remove(world: &Path, name: &str) {
    fs::remove_file(world.join(name)).expect("remove a file");
}

fn write(world: &Path, name: &str, text: &str) {
    fs::write(world.join(name), text).expect("write a file");
}

fn cut_manifest(world: &Path) {
    let text = fs::read_to_string(world.join("world.json")).expect("the manifest");
    write(world, "world.json", &text[..text.len() / 2]);
}

fn edited_by_hand(world: &Path) {
    let text = fs::read_to_string(world.join("world.json")).expect("the manifest");
    write(
        world,
        "world.json",
        &text.replace("\"default\"", "\"defualt\""),
    );
}

fn flipped_bit(world: &Path) {
    let path = world.join("pages-1.img");
    let mut bytes = fs::read(&path).expect("the pages");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(path, bytes).expect("write the pages");
}

fn cut_image(world: &Path) {
    let path = world.join("pages-1.img");
    let bytes = fs::read(&path).expect("the pages");
    fs::write(&path, &bytes[..bytes.len() - 1]).expect("write the pages");
}

fn image_is_symlink(world: &Path) {
    let elsewhere = world.with_extension("pages");
    fs::rename(world.join("pages-1.img"), &elsewhere).expect("move the pages");
    symlink(elsewhere, world.join("pages-1.img")).expect("a link");
}

fn add_feature(manifest: &mut Value) {
    let features = manifest["host"]["cpuFeatures"]
        .as_array_mut()
        .expect("a list");
    features.push(json!("avx1024"));
}

/// Edits a manifest as somebody does who knows how to make the checksum fit.
fn reseal(world: &Path, edit: impl FnOnce(&mut Value)) {
    let path = world.join("world.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&path).expect("it")).expect("JSON");
    edit(&mut manifest);
    manifest["checksum"] = json!(Digest::default().to_string());
    let bytes = serde_json::to_vec(&manifest).expect("JSON");
    fs::write(path, sealed(bytes).expect("a checksum")).expect("write it");
}
