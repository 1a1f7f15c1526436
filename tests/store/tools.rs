//! skopeo and oras read the store as it lies.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use worldshim::digest::Digest;
use worldshim::store::{Published, Store};

use crate::common::{Home, WORLD, publish};

fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed, run this in the lab: {error}"));
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {complaints}"
    );
    output.stdout
}

fn home_with_a_world() -> (Home, Published, String) {
    let home = Home::new();
    let world = publish(&home.store, &["a layer", "another"], Some("team/web:v1"));
    let path = home.store.path().to_str().expect("a path").to_owned();
    (home, world, path)
}

#[test]
fn skopeo_reads_a_world_by_its_name() {
    let (_home, world, path) = home_with_a_world();
    let raw = run(
        "skopeo",
        &["inspect", "--raw", &format!("oci:{path}:team/web:v1")],
    );
    assert_eq!(Digest::of(&raw), world.digest);
}

#[test]
fn oras_reads_a_world_by_its_digest() {
    let (_home, world, path) = home_with_a_world();
    let by_digest = format!("{path}@{}", world.digest);
    let raw = run("oras", &["manifest", "fetch", "--oci-layout", &by_digest]);
    assert_eq!(Digest::of(&raw), world.digest);
    let described = ["manifest", "fetch", "--descriptor", "--oci-layout"];
    let descriptor = run("oras", &[&described[..], &[&by_digest]].concat());
    let descriptor: Value = serde_json::from_slice(&descriptor).expect("JSON");
    assert_eq!(descriptor["digest"], world.digest.to_string());
    assert_eq!(descriptor["size"], world.size);
}

#[test]
fn oras_copies_a_world_into_another_layout_and_back() {
    let (home, world, path) = home_with_a_world();
    let copy = home.folder.path().join("copy");
    let copy = copy.to_str().expect("a path");
    let from = format!("{path}@{}", world.digest);
    let to = format!("{copy}:v1");
    run(
        "oras",
        &["cp", "--from-oci-layout", &from, "--to-oci-layout", &to],
    );
    // What oras wrote is a layout that the store understands.
    let store = Store::open_existing(Path::new(copy)).expect("a store");
    let listed = store.list().expect("a list");
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].digest, world.digest);
    assert_eq!(listed[0].names, ["v1"]);
    assert_eq!(listed[0].artifact_type.as_deref(), Some(WORLD));
    let found = store.resolve(&"v1".parse().expect("a name"));
    assert_eq!(found.expect("by the name that oras gave"), world.digest);
    let lease = store.lease().expect("a lease");
    lease.hold_world(&world.digest).expect("a whole world");
}
