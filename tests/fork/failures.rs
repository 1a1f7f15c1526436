//! What fails is gone, and harms nobody.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::siblings::{Fork, ids, left};
use super::verbs::World;
use crate::common::container::Container;
use crate::common::ctr::{self, BUSYBOX, within};
use crate::common::suite::{Case, Test, alone, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("a_name_that_is_taken_fails_one_sibling", taken),
        shared("one_that_cannot_be_brought_back_leaves_nothing", broken),
        shared("an_interrupted_fork_is_undone", interrupted),
        shared("a_killed_fork_can_be_removed", killed),
        alone("what_containerd_forgot_is_swept", swept),
        alone("in_the_end_nothing_is_left", nothing),
    ]
}

fn taken(test: &Test) {
    let world = World::new(test);
    let source = Container::counter(test, "a", &[]);
    world.checkpoint(&source.id, "x");
    let prefix = test.id("s");
    let other = Container::run(test, "s-1", &[], BUSYBOX, &["sleep", "1000"]);
    let pid = other.pid();
    let words = [
        "--format",
        "json",
        "fork",
        "x",
        "-n",
        "3",
        "--name-prefix",
        &prefix,
    ];
    let output = world.run(&words);
    assert_eq!(output.status.code(), Some(4));
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report all the same");
    assert_eq!(report["failed"], 1);
    assert_eq!(report["siblings"][1]["error"]["kind"], "already-exists");
    assert_eq!(other.pid(), pid, "somebody else's stays");
    assert_eq!(other.status(), "RUNNING");
    for index in [0, 2] {
        let id = format!("{prefix}-{index}");
        let sibling = Container { id };
        sibling.counts_past(sibling.count());
    }
    let removed = world.json(&["rm", "--forks-of", "x"]);
    assert_eq!(removed["removed"].as_array().map(Vec::len), Some(2));
    assert_eq!(other.pid(), pid);
    source.counts_past(source.count());
}

/// Its log cannot be written: the shim fails when it is to start.
fn broken(test: &Test) {
    let world = World::new(test);
    let source = Container::counter(test, "a", &[]);
    world.checkpoint(&source.id, "x");
    let prefix = test.id("s");
    let words = [
        "fork",
        "x",
        "-n",
        "3",
        "--name-prefix",
        &prefix,
        "--log-uri",
        "binary:///none",
    ];
    let output = world.run(&words);
    assert!(!output.status.success());
    let prefix = format!("{prefix}-");
    assert!(
        left(test).iter().all(|line| !line.starts_with(&prefix)),
        "{:?}",
        left(test)
    );
    source.counts_past(source.count());
    let fork = Fork::of(test, &world, "x", "s", &["-n", "3"]);
    fork.remove(&world);
}

/// Starts a fork and leaves it to itself for a while.
fn begin(test: &Test, world: &World, name: &str, after: Duration) -> std::process::Child {
    let child = Command::new("world")
        .args(["fork", "x", "-n", "6", "--name-prefix", &test.id(name)])
        .env("WORLD_STORE", &world.store)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("run world");
    sleep(after);
    child
}

fn interrupted(test: &Test) {
    let world = World::new(test);
    let source = Container::counter(test, "a", &[]);
    world.checkpoint(&source.id, "x");
    for after in [50, 300, 700] {
        let mut child = begin(test, &world, "s", Duration::from_millis(after));
        let pid = Pid::from_child(&child);
        let _ = kill_process(pid, Signal::INT);
        let status = child.wait().expect("its end");
        let prefix = test.id("s-");
        let ours = |line: &String| line.starts_with(&prefix);
        if !status.success() {
            assert!(
                !left(test).iter().any(ours),
                "after {after} ms: {:?}",
                left(test)
            );
        } else {
            world.json(&["rm", "--forks-of", "x"]);
        }
    }
    source.counts_past(source.count());
    world.json(&["gc"]);
    world.sound();
}

fn killed(test: &Test) {
    let world = World::new(test);
    let source = Container::counter(test, "a", &[]);
    let digest = world.checkpoint(&source.id, "x");
    for after in [100, 250, 400, 600, 900] {
        let mut child = begin(test, &world, "s", Duration::from_millis(after));
        let _ = child.kill();
        let _ = child.wait();
        let prefix = test.id("s-");
        within(30, "everything of it is gone", || {
            world.json(&["rm", "--forks-of", &digest]);
            !left(test).iter().any(|line| line.starts_with(&prefix))
        });
    }
    world.json(&["gc"]);
    let work = world.store.join(".worldshim/work");
    let left_there = std::fs::read_dir(work).map(Iterator::count).unwrap_or(0);
    assert_eq!(left_there, 0, "the folder is swept");
    source.counts_past(source.count());
    let fork = Fork::of(test, &world, "x", "s", &["-n", "2"]);
    fork.remove(&world);
    world.sound();
}

/// containerd's sweep forgets that a snapshot stood on ours, which it cannot remove itself then.
fn swept(test: &Test) {
    let world = World::new(test);
    let source = Container::counter(test, "a", &[]);
    world.checkpoint(&source.id, "x");
    let fork = Fork::of(test, &world, "x", "s", &[]);
    let snapshot = fork.report["files"]["snapshot"].as_str().expect("one");
    ctr::ok(&["snapshots", "view", &test.id("view"), snapshot]);
    let lease = test.id("lease");
    ctr::ok(&["leases", "create", "--id", &lease]);
    ctr::ok(&["leases", "delete", "--sync", &lease]);
    let left = ctr::ok(&["snapshots", "ls"]);
    assert!(
        !left.contains(&test.id("view")),
        "containerd sweeps it: {left}"
    );
    let removed = world.json(&["rm", "--forks-of", "x"]);
    assert_eq!(removed["snapshots"][0], *snapshot, "{removed:#}");
    assert!(!ctr::ok(&["snapshots", "ls"]).contains(snapshot));
}

/// Alone, for it looks at what all forks share.
fn nothing(test: &Test) {
    let world = World::new(test);
    let source = Container::counter(test, "a", &[]);
    world.checkpoint(&source.id, "x");
    let fork = Fork::of(test, &world, "x", "s", &["-n", "4"]);
    assert_eq!(ids(&fork.report).count(), 4);
    let namespaces = network_namespaces();
    fork.remove(&world);
    source.remove();
    within(10, "their network namespaces are gone", || {
        network_namespaces() + 5 <= namespaces
    });
    // containerd sweeps in its own time what a killed fork held.
    within(30, "no snapshot of ours is left", || {
        world.json(&["gc"]);
        !ctr::ok(&["snapshots", "ls"]).contains("worldshim-")
    });
}

/// How many the processes of the lab are in.
fn network_namespaces() -> usize {
    let mut found = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir("/proc").expect("list /proc").flatten() {
        if let Ok(link) = std::fs::read_link(entry.path().join("ns/net")) {
            found.insert(link);
        }
    }
    found.len()
}
