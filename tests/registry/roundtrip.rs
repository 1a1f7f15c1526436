//! There and back: digests, what travels, and what other tools make of it.

use std::fs;

use serde_json::Value;
use worldshim::digest::Digest;

use super::server::{Registry, big, small, tool};
use super::verbs::World;
use crate::common::container::Container;
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("a_world_goes_and_comes_with_its_digest", digests),
        shared("only_what_is_new_travels", new),
        shared("a_pulled_world_is_gone_on_with", goes_on),
        shared("references_and_names", names),
    ]
}

/// A second store of the test.
pub fn second(test: &Test) -> World {
    World {
        store: test.path("second"),
    }
}

pub const HTTP: &str = "--plain-http";

fn digests(test: &Test) {
    let (registry, world) = (Registry::serve(test), World::new(test));
    let container = Container::counter(test, "a", &[]);
    let digest = world.checkpoint(&container.id, "t:1");
    let count = container.count();
    let place = registry.at("a/b/t:1");
    let pushed = world.json(&["push", "t:1", &place, HTTP]);
    assert_eq!(pushed["digest"], digest.as_str());
    assert_eq!(pushed["reference"], place.as_str());
    assert_eq!(pushed["transferred_bytes"], pushed["bytes"]);
    assert_eq!(pushed["skipped_blobs"], 0);
    assert!(pushed["seconds"].as_f64() > Some(0.0));

    // What other tools find there.
    let docker = format!("docker://{place}");
    let fetched = tool("oras", &["manifest", "fetch", HTTP, &place]);
    assert_eq!(Digest::of(&fetched).to_string(), digest);
    let raw = tool(
        "skopeo",
        &["inspect", "--raw", "--tls-verify=false", &docker],
    );
    assert_eq!(raw, fetched);
    let layout = test.path("layout");
    let copy = format!("oci:{}:t:1", layout.display());
    tool(
        "skopeo",
        &[
            "copy",
            "-q",
            "--src-tls-verify=false",
            "--preserve-digests",
            &docker,
            &copy,
        ],
    );
    assert_eq!(blobs(&layout), blobs(&world.store));

    // And the other way: the store as skopeo carries it.
    let source = format!("oci:{}:t:1", world.store.display());
    let carried = registry.at("carried:1");
    let target = format!("docker://{carried}");
    tool(
        "skopeo",
        &[
            "copy",
            "-q",
            "--dest-tls-verify=false",
            "--preserve-digests",
            &source,
            &target,
        ],
    );
    let other = second(test);
    let pulled = other.json(&["pull", &carried, HTTP]);
    assert_eq!(pulled["digest"], digest.as_str());
    assert_eq!(pulled["name"], "carried:1");
    assert_eq!(pulled["transferred_bytes"], pulled["bytes"]);
    assert_eq!(blobs(&other.store), blobs(&world.store));
    other.json(&["verify", "carried:1"]);
    other.sound();

    // Nothing is carried twice.
    for report in [
        world.json(&["push", "t:1", &place, HTTP]),
        other.json(&["pull", &place, HTTP]),
    ] {
        assert_eq!(report["digest"], digest.as_str());
        assert_eq!(report["transferred_bytes"], 0, "{report:#}");
        assert_eq!(report["skipped_blobs"], report["blobs"]);
    }
    let id = test.id("b");
    other.json(&["restore", "t:1", "--id", &id]);
    Container { id }.goes_on_from(count - 2);
}

/// Names of all blobs of a layout.
fn blobs(layout: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(layout.join("blobs/sha256")).expect("blobs");
    let names = entries.map(|entry| entry.expect("a blob").file_name());
    let mut names: Vec<_> = names.map(|n| n.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn transferred(report: &Value) -> u64 {
    report["transferred_bytes"].as_u64().expect("a number")
}

fn new(test: &Test) {
    let (registry, world) = (Registry::serve(test), World::new(test));
    let container = big(test, "a", 40);
    world.checkpoint(&container.id, "x:1");
    container.exec(&["sh", "-c", "echo changed >/file"]);
    world.checkpoint(&container.id, "x:2");
    let (one, two) = (registry.at("x:1"), registry.at("x:2"));
    let first = world.json(&["push", "x:1", &one, HTTP]);
    assert_eq!(first["transferred_bytes"], first["bytes"]);
    assert!(transferred(&first) > 40 << 20);
    let next = world.json(&["push", "x:2", &two, HTTP]);
    assert!(transferred(&next) < transferred(&first) / 50, "{next:#}");
    let other = second(test);
    let first = other.json(&["pull", &one, HTTP]);
    assert_eq!(first["transferred_bytes"], first["bytes"]);
    let next = other.json(&["pull", &two, HTTP]);
    assert!(transferred(&next) < transferred(&first) / 50, "{next:#}");
    other.json(&["verify", "x:2"]);
    other.sound();
}

fn goes_on(test: &Test) {
    let (registry, world) = (Registry::serve(test), World::new(test));
    let container = big(test, "a", 16);
    let digest = world.checkpoint(&container.id, "x");
    let place = registry.at("x");
    world.json(&["push", "x", &place, HTTP]);
    let other = second(test);
    other.json(&["pull", &place, HTTP]);
    let id = test.id("b");
    other.json(&["restore", "x", "--id", &id]);
    // Its pages are known where it came to: they are not stored again.
    let report = other.json(&["checkpoint", &id, "x:next"]);
    assert_eq!(report["parent"], digest.as_str());
    assert!(report["new_bytes"].as_u64() < Some(2 << 20), "{report:#}");
    other.sound();
}

fn names(test: &Test) {
    let (registry, world) = (Registry::serve(test), World::new(test));
    let container = small(test, "a");
    let digest = world.checkpoint(&container.id, "x");
    let place = registry.at("x");
    world.json(&["push", "x", &place, HTTP]);
    let other = second(test);
    let by_digest = format!("{place}@{digest}");
    let pulled = other.json(&["pull", &by_digest, HTTP]);
    assert_eq!(pulled["name"], Value::Null);
    let pulled = other.json(&["pull", &by_digest, "called:so", HTTP]);
    assert_eq!(pulled["name"], "called:so");
    let absent = format!("{place}@sha256:{}", "0".repeat(64));
    let said = other.refused(3, &["pull", &absent, HTTP]);
    assert!(said.contains(&absent), "{said}");
    let said = other.refused(3, &["pull", &registry.at("nobody:1"), HTTP]);
    assert!(said.contains("nobody:1"), "{said}");
    let said = world.refused(2, &["push", "x", &by_digest, HTTP]);
    assert!(said.contains("tag"), "{said}");
    let said = world.refused(
        2,
        &[
            "push",
            "x",
            &format!("{place}:t@sha256:{}", "0".repeat(64)),
            HTTP,
        ],
    );
    assert!(said.contains(&digest), "{said}");
    world.json(&["push", "x", &format!("{place}:t@{digest}"), HTTP]);
    // Without leave, nothing unencrypted.
    let said = world.refused(15, &["push", "x", &place]);
    assert!(said.contains("--plain-http"), "{said}");
    other.sound();
}
