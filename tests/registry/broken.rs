//! Networks that fail, processes that are killed, registries that are damaged.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use super::roundtrip::{HTTP, second};
use super::server::{Registry, big, small};
use super::verbs::World;
use super::wire::{Fault, Wire};
use crate::common::ctr::within;
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("a_network_that_breaks_again_and_again", cut),
        shared("a_pull_that_is_killed_is_gone_on_with", killed_pull),
        shared("a_push_that_is_killed_is_done_again", killed_push),
        shared("killed_at_many_moments", many_moments),
        shared("what_is_damaged_in_the_registry_is_not_published", damaged),
        shared("a_registry_that_is_not_there", nobody),
    ]
}

fn cut(test: &Test) {
    let (registry, world) = (Registry::serve(test), World::new(test));
    let container = big(test, "a", 50);
    world.checkpoint(&container.id, "x");
    for (name, fault) in [
        ("between", Fault::CutSecond("PATCH ")),
        ("within", Fault::CutOnceAfter(9 << 20)),
        ("at-the-end", Fault::CutSecond("PUT ")),
    ] {
        let wire = Wire::to(&registry.address, fault);
        let pushed = world.json(&["push", "x", &wire.at(name), HTTP]);
        assert_eq!(pushed["transferred_bytes"], pushed["bytes"], "{name}");
    }
    let other = second(test);
    let wire = Wire::to(&registry.address, Fault::CutAfter(9 << 20));
    let pulled = other.json(&["pull", &wire.at("between"), HTTP]);
    assert_eq!(pulled["transferred_bytes"], pulled["bytes"]);
    other.json(&["verify", "between"]);
    for name in ["within", "at-the-end"] {
        let pulled = other.json(&["pull", &registry.at(name), HTTP]);
        assert_eq!(pulled["transferred_bytes"], 0);
    }
    other.sound();
}

/// A verb that is going on.
fn begin(world: &World, arguments: &[&str]) -> Child {
    Command::new("world")
        .args(arguments)
        .env("WORLD_STORE", &world.store)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("run world")
}

fn kill(mut child: Child) {
    assert!(child.try_wait().expect("a child").is_none(), "it goes on");
    child.kill().expect("kill -9");
    child.wait().expect("its end");
}

/// The size of what a killed pull left.
fn partial(store: &Path) -> u64 {
    let entries = fs::read_dir(store.join(".worldshim/tmp"));
    let files = entries.into_iter().flatten().flatten();
    let ours = files.filter(|e| e.file_name().to_string_lossy().starts_with("partial-"));
    ours.filter_map(|e| e.metadata().ok())
        .map(|m| m.len())
        .sum()
}

/// Only notes of what the dead left: `fsck` succeeds.
fn undamaged(world: &World) {
    let report = world.json(&["fsck"]);
    let notes = ["dead-lease", "dead-temporary", "partial"];
    for finding in report["findings"].as_array().expect("findings") {
        let kind = finding["kind"].as_str().expect("a kind");
        assert!(notes.contains(&kind), "{report:#}");
    }
}

fn killed_pull(test: &Test) {
    let (registry, world) = (Registry::serve(test), World::new(test));
    let container = big(test, "a", 40);
    world.checkpoint(&container.id, "x");
    world.json(&["push", "x", &registry.at("x"), HTTP]);
    let other = second(test);
    let wire = Wire::to(&registry.address, Fault::StallAfter(20 << 20));
    let pull = begin(&other, &["pull", &wire.at("x"), HTTP]);
    within(30, "half of it", || partial(&other.store) > 16 << 20);
    kill(pull);
    let left = partial(&other.store);
    undamaged(&other);
    assert_eq!(other.json(&["ls"]), json!([]), "nothing is published");
    let pulled = other.json(&["pull", &registry.at("x"), HTTP]);
    let (sent, bytes) = (
        pulled["transferred_bytes"].as_u64(),
        pulled["bytes"].as_u64(),
    );
    assert!(
        sent <= bytes.map(|bytes| bytes - left),
        "{left} were there: {pulled:#}"
    );
    other.json(&["verify", "x"]);
    other.json(&["gc"]);
    other.sound();
}

fn killed_push(test: &Test) {
    let (registry, world) = (Registry::serve(test), World::new(test));
    let container = big(test, "a", 40);
    let digest = world.checkpoint(&container.id, "x");
    let wire = Wire::to(&registry.address, Fault::StallAfter(20 << 20));
    let push = begin(&world, &["push", "x", &wire.at("x"), HTTP]);
    std::thread::sleep(std::time::Duration::from_secs(2));
    kill(push);
    let other = second(test);
    other.refused(3, &["pull", &registry.at("x"), HTTP]);
    undamaged(&world);
    world.json(&["push", "x", &registry.at("x"), HTTP]);
    let pulled = other.json(&["pull", &registry.at("x"), HTTP]);
    assert_eq!(pulled["digest"], digest.as_str());
    world.json(&["gc"]);
    world.sound();
    other.sound();
}

fn many_moments(test: &Test) {
    let (registry, world) = (Registry::serve(test), World::new(test));
    let container = big(test, "a", 24);
    let digest = world.checkpoint(&container.id, "x");
    let place = registry.at("x");
    let other = second(test);
    let after = |milliseconds| std::thread::sleep(std::time::Duration::from_millis(milliseconds));
    for moment in 1..=10 {
        let mut push = begin(&world, &["push", "x", &place, HTTP]);
        after(moment * 35);
        push.kill().expect("kill -9");
        push.wait().expect("its end");
        undamaged(&world);
    }
    world.json(&["push", "x", &place, HTTP]);
    for moment in 1..=10 {
        let mut pull = begin(&other, &["pull", &place, HTTP]);
        after(moment * 35);
        pull.kill().expect("kill -9");
        pull.wait().expect("its end");
        if other.store.join("oci-layout").exists() {
            undamaged(&other);
            other.json(&["gc"]);
        }
    }
    let pulled = other.json(&["pull", &place, HTTP]);
    assert_eq!(pulled["digest"], digest.as_str());
    other.json(&["verify", "x"]);
    for world in [&world, &other] {
        world.json(&["gc"]);
        world.sound();
    }
}

/// What is done to a file of the registry.
type Damage = fn(&Path);

const DAMAGE: [(&str, Damage); 4] = [
    ("a bit flipped", |path| {
        let mut bytes = fs::read(path).expect("a blob");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        fs::write(path, bytes).expect("write");
    }),
    ("cut", |path| {
        let bytes = fs::read(path).expect("a blob");
        fs::write(path, &bytes[..bytes.len() / 2]).expect("write");
    }),
    ("longer", |path| {
        let mut bytes = fs::read(path).expect("a blob");
        bytes.extend([0; 4096]);
        fs::write(path, bytes).expect("write");
    }),
    ("gone", |path| fs::remove_file(path).expect("remove")),
];

fn damaged(test: &Test) {
    let (registry, world) = (Registry::serve(test), World::new(test));
    let container = small(test, "a");
    let digest = world.checkpoint(&container.id, "x");
    let place = registry.at("x");
    world.json(&["push", "x", &place, HTTP]);
    let inspected = world.json(&["inspect", "x"]);
    let blobs = inspected["blobs"].as_array().expect("blobs");
    let mut digests: Vec<String> = blobs
        .iter()
        .map(|blob| blob["digest"].as_str().expect("a digest").to_owned())
        .collect();
    digests.push(digest.clone());
    for (number, (what, damage)) in DAMAGE.into_iter().enumerate() {
        // The manifest, which is the last, and another one each time.
        let some = [&digests[number], &digests[digests.len() - 1]];
        for blob in some {
            let file = registry.file(blob);
            let sound = fs::read(&file).expect("a blob");
            damage(&file);
            let other = World {
                store: test.path("third"),
            };
            let output = other.run(&["pull", &place, HTTP]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "{what} {blob}");
            assert_eq!(said.lines().count(), 1, "{what} {blob}: {said}");
            assert!(said.contains(&place), "{what} {blob}: {said}");
            println!("{what}: {}", said.trim_end());
            if other.store.exists() {
                assert_eq!(other.json(&["ls"]), json!([]), "{what} {blob}");
                undamaged(&other);
            }
            fs::write(&file, sound).expect("repair");
            // What was sound of it is of use, and what was not does no harm.
            other.json(&["pull", &place, HTTP]);
            other.json(&["verify", "x"]);
            undamaged(&other);
            fs::remove_dir_all(&other.store).expect("remove");
        }
    }
}

fn nobody(test: &Test) {
    let world = World::new(test);
    let container = small(test, "a");
    world.checkpoint(&container.id, "x");
    let registry = Registry::serve(test);
    let place = registry.at("x");
    drop(registry);
    let said = world.refused(15, &["push", "x", &place, HTTP]);
    assert!(said.contains("refused"), "{said}");
    let other = second(test);
    other.refused(15, &["pull", &place, HTTP]);
    assert!(!other.store.exists(), "no store is made for nothing");
}
