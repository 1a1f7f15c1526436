//! The base image, carried along to where no registry is.

use std::path::Path;

use super::verbs::World;
use crate::common::container::Container;
use crate::common::ctr;
use crate::common::image;
use crate::common::suite::{Case, Test, alone, shared};

pub fn cases() -> Vec<Case> {
    vec![
        alone(
            "a_node_without_registry_gets_the_image_with_the_world",
            elsewhere,
        ),
        shared("the_image_is_part_of_the_world", part),
        shared("a_world_whose_image_is_damaged_changes_nothing", damaged),
    ]
}

/// Where containerd keeps the bundles of its namespaces.
const TASKS: &str = "/run/containerd/io.containerd.runtime.v2.task";

/// A namespace of containerd sees no images, layers or snapshots of another: a node of its own.
struct Node(String);

impl Node {
    fn run(&self, words: &[&str]) -> String {
        let mut all = vec!["-n", &self.0];
        all.extend(words);
        String::from_utf8_lossy(&ctr::run(&all).stdout).into_owned()
    }

    fn count(&self, id: &str) -> u64 {
        let told = self.run(&["task", "exec", "--exec-id", "look", id, "cat", "/count"]);
        let told = told.split(' ').next().unwrap_or_default();
        told.parse().unwrap_or(0)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for id in self.run(&["container", "ls", "-q"]).lines() {
            self.run(&["task", "rm", "--force", id]);
            self.run(&["container", "rm", id]);
        }
        for image in self.run(&["image", "ls", "-q"]).lines() {
            self.run(&["image", "rm", "--sync", image]);
        }
        ctr::run(&["namespace", "rm", &self.0]);
        // What any runtime leaves of a namespace that nobody uses any more.
        let _ = std::fs::remove_dir(Path::new(TASKS).join(&self.0));
        let controllers = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten();
        for controller in controllers.flatten() {
            let _ = std::fs::remove_dir(controller.path().join(&self.0));
        }
        let _ = std::fs::remove_dir(Path::new("/sys/fs/cgroup").join(&self.0));
    }
}

fn elsewhere(test: &Test) {
    let world = World::new(test);
    let container = Container::counter_on(test, "a", &[], &image::whole(test));
    let without = world.json(&["checkpoint", &container.id, "without"]);
    let report = world.json(&["checkpoint", &container.id, "with", "--with-base"]);
    assert!(report["bytes"].as_u64() > without["bytes"].as_u64());
    let count = container.count();
    let id = container.id.clone();
    let node = Node("node-a".to_owned());
    ctr::ok(&["namespace", "create", &node.0]);

    // The lab has no way to a registry: without the image there is no restore.
    let said = world.refused(15, &["restore", "without", "-n", &node.0]);
    assert!(said.contains("pull example.test/"), "{said}");

    // The store of another node, which has nothing but what travels.
    let layout = test.path("with.tar");
    let layout = layout.to_str().expect("UTF-8");
    world.json(&["export", "with", layout, "--as", "oci"]);
    let other = World {
        store: test.path("other"),
    };
    let imported = other.json(&["import", layout]);
    assert_eq!(imported["digest"], report["digest"]);
    let plan = other.json(&["restore", "with", "-n", &node.0, "--dry-run"]);
    assert_eq!(plan["pull"], serde_json::Value::Null);
    let name = plan["import"].as_str().expect("an image").to_owned();
    assert!(
        node.run(&["image", "ls", "-q"]).is_empty(),
        "a plan changes nothing"
    );

    let restored = other.json(&["restore", "with", "-n", &node.0]);
    assert_eq!(restored["id"], id.as_str());
    ctr::within(20, "it counts on", || node.count(&id) > count);
    assert!(node.run(&["image", "ls", "-q"]).contains(&name));
    let check = node.run(&["image", "check"]);
    assert!(check.contains("complete"), "{check}");

    // What was restored there can be frozen there, and comes back without an import.
    let again = other.json(&["checkpoint", "-n", &node.0, &id, "again", "--with-base"]);
    assert!(again["new_bytes"].as_u64() < report["bytes"].as_u64());
    let plan = other.json(&["restore", "again", "-n", &node.0, "--id", "x", "--dry-run"]);
    assert_eq!(plan["import"], serde_json::Value::Null);
    other.sound();
    world.sound();
    container.remove();
}

fn part(test: &Test) {
    let world = World::new(test);
    let container = Container::counter_on(test, "a", &[], &image::whole(test));
    let report = world.json(&["checkpoint", &container.id, "x", "--with-base"]);
    let digest = report["digest"].as_str().expect("a digest");
    let path = |digest: &str| world.store.join("blobs/sha256").join(&digest[7..]);
    let read = |digest: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(path(digest)).expect("a blob")).expect("JSON")
    };
    let manifest = read(digest);
    let layers = manifest["layers"].as_array().expect("layers");
    let base: Vec<&str> = layers
        .iter()
        .filter(|layer| layer["mediaType"] == "application/vnd.worldshim.world.base.v1")
        .map(|layer| layer["digest"].as_str().expect("a digest"))
        .collect();
    let image = read(base[0]);
    assert_eq!(image["config"]["digest"], base[1]);
    assert_eq!(image["layers"][0]["digest"], base[2]);

    // The sweep leaves it, and goes with the world.
    world.json(&["gc"]);
    assert!(base.iter().all(|digest| path(digest).exists()));
    world.json(&["verify", "x"]);
    world.sound();
    world.json(&["rm", "x"]);
    world.json(&["gc"]);
    assert!(base.iter().all(|digest| !path(digest).exists()));
    container.counts_past(container.count());
}

fn damaged(test: &Test) {
    let world = World::new(test);
    let container = Container::counter_on(test, "a", &[], &image::whole(test));
    let report = world.json(&["checkpoint", &container.id, "x", "--with-base"]);
    let digest = report["digest"].as_str().expect("a digest");
    let blobs = world.store.join("blobs/sha256");
    let manifest = std::fs::read(blobs.join(&digest[7..])).expect("the manifest");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    let layer = manifest["layers"]
        .as_array()
        .and_then(|layers| layers.last());
    let layer = layer.expect("a layer")["digest"]
        .as_str()
        .expect("a digest");
    let path = blobs.join(&layer[7..]);
    let mut bytes = std::fs::read(&path).expect("the image's layer");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).expect("damage it");
    let node = Node("node-b".to_owned());
    ctr::ok(&["namespace", "create", &node.0]);
    let said = world.refused(6, &["restore", "x", "-n", &node.0]);
    assert!(said.contains(layer) && said.contains("damaged"), "{said}");
    assert!(node.run(&["image", "ls", "-q"]).is_empty());
    assert!(node.run(&["container", "ls", "-q"]).is_empty());
    world.refused(6, &["verify", "x"]);
    // The container's own node needs none of it.
    let (id, count) = (container.id.clone(), container.count());
    container.remove();
    world.json(&["restore", "x"]);
    Container { id }.goes_on_from(count - 1);
}
