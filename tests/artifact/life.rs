//! From a container to a world and back.

use super::verbs::World;
use crate::common::container::Container;
use crate::common::ctr::{self, BUSYBOX};
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("a_container_comes_back_under_its_own_name", comes_back),
        shared("three_come_back_beside_the_original", beside),
        shared("stopped_when_its_world_is_safe", stop),
        shared("a_plan_changes_nothing", dry_run),
        shared("a_world_is_called_like_its_container", named),
    ]
}

fn comes_back(test: &Test) {
    let world = World::new(test);
    let container = Container::counter(test, "a", &["--env", "GREETING=hello", "--label", "app=x"]);
    container.exec(&[
        "sh",
        "-c",
        "mkdir /made; echo kept >/made/file; rm /etc/passwd",
    ]);
    let report = world.json(&["checkpoint", &container.id, "counter:1"]);
    let count = container.count();
    assert!(report["frozen_ns"].as_u64() > Some(0));
    assert!(report["total_ns"].as_u64() > report["frozen_ns"].as_u64());
    assert_eq!(report["parent"], serde_json::Value::Null);
    assert!(report["new_bytes"].as_u64() <= report["bytes"].as_u64());
    let id = container.id.clone();
    container.remove();

    let verified = world.json(&["verify", "counter:1"]);
    assert_eq!(verified["digest"], report["digest"]);
    let restored = world.json(&["restore", "counter:1"]);
    assert_eq!(restored["id"], id);
    let back = Container { id };
    back.goes_on_from(count - 2);
    assert_eq!(back.read("/made/file"), "kept");
    assert!(
        !back.path("/etc/passwd").exists(),
        "what was removed stays away"
    );
    assert_eq!(back.exec(&["sh", "-c", "echo $GREETING"]), "hello");
    let record = ctr::ok(&["container", "info", &back.id]);
    let record: serde_json::Value = serde_json::from_str(&record).expect("JSON");
    assert_eq!(record["Labels"]["app"], "x");
    assert_eq!(record["Labels"]["dev.worldshim.world"], report["digest"]);
    world.sound();
}

fn beside(test: &Test) {
    let world = World::new(test);
    let original = Container::counter(test, "a", &[]);
    world.checkpoint(&original.id, "x");
    let count = original.count();
    let mut clones = Vec::new();
    for name in ["b", "c", "d"] {
        let id = test.id(name);
        let host = format!("host-{name}");
        world.json(&[
            "restore",
            "x",
            "--id",
            &id,
            "--hostname",
            &host,
            "--env",
            "N=1",
            "--label",
            "n=2",
        ]);
        let clone = Container { id };
        assert_eq!(
            clone.exec(&["sh", "-c", "echo $(hostname) $N"]),
            format!("{host} 1")
        );
        clones.push(clone);
    }
    for clone in &clones {
        clone.goes_on_from(count - 2);
    }
    original.counts_past(count);
    // A second generation, of a clone.
    let digest = world.checkpoint(&clones[0].id, "second");
    let inspected = world.json(&["inspect", "second"]);
    assert_eq!(inspected["digest"], digest.as_str());
    assert_eq!(inspected["lineage"].as_array().map(Vec::len), Some(1));
    world.sound();
}

fn stop(test: &Test) {
    let world = World::new(test);
    let container = Container::counter(test, "a", &[]);
    let report = world.json(&["checkpoint", &container.id, "x", "--stop"]);
    assert_eq!(report["stopped"], true);
    assert_eq!(container.status(), "STOPPED");
    let count = container.count();
    let id = container.id.clone();
    container.remove();
    world.json(&["restore", "x"]);
    Container { id }.goes_on_from(count - 1);
    let rescued = world.store.join(".worldshim/rescued");
    assert_eq!(
        std::fs::read_dir(rescued).map(Iterator::count).unwrap_or(0),
        0
    );
    world.sound();
}

fn dry_run(test: &Test) {
    let world = World::new(test);
    let container = Container::counter(test, "a", &["--env", "API_KEY=abcdefgh12345678"]);
    world.checkpoint(&container.id, "x");
    let id = test.id("b");
    let plan = world.json(&["restore", "x", "--id", &id, "--dry-run"]);
    assert_eq!(plan["id"], id.as_str());
    assert_eq!(plan["pull"], serde_json::Value::Null);
    assert_eq!(plan["variables_left_out"], serde_json::json!(["API_KEY"]));
    assert_eq!(ctr::status(&id), None);
    assert!(!ctr::ok(&["container", "ls", "-q"]).contains(&id));
    world.json(&["restore", "x", "--id", &id, "--env", "API_KEY=new"]);
    let clone = Container { id };
    assert_eq!(clone.exec(&["sh", "-c", "echo $API_KEY"]), "new");
}

fn named(test: &Test) {
    let world = World::new(test);
    let container = Container::run(test, "Upper.Lower", &[], BUSYBOX, &["sleep", "1000"]);
    let report = world.json(&["checkpoint", &container.id]);
    let name = format!("{}:latest", container.id.to_lowercase());
    assert_eq!(report["name"], name.as_str());
}
