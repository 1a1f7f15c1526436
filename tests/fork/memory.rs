//! Siblings and the page server that has their memory.

use std::fs;

use crate::common::container::Container;
use crate::common::ctr::{self, within};
use crate::common::processes;
use crate::common::suite::{Case, Test, shared};
use crate::siblings::Fork;
use crate::verbs::World;

pub fn cases() -> Vec<Case> {
    vec![
        shared("who_lacks_memory_ends_with_its_server", server_killed),
        shared("a_killed_shim_takes_only_its_own", shim_killed),
        shared(
            "a_sibling_is_checkpointed_with_all_its_memory",
            checkpointed,
        ),
    ]
}

/// The page server of a test's store.
fn server(world: &World) -> Option<i32> {
    let store = world.store.to_string_lossy().into_owned();
    fs::read_dir("/proc")
        .expect("list /proc")
        .find_map(|entry| {
            let entry = entry.ok()?;
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let argv = fs::read_to_string(entry.path().join("cmdline")).ok()?;
            let mut words = argv.split('\0');
            let is_server = words.clone().any(|word| word == "page-server");
            (is_server && words.any(|word| word == store)).then_some(pid)
        })
}

fn server_killed(test: &Test) {
    let world = World::new(test);
    let source = Container::big(test, "a", 32);
    world.checkpoint(&source.id, "x");
    let fork = Fork::of(test, &world, "x", "s", &["-n", "2"]);
    assert_eq!(fork.report["memory"], "lazy");
    let (own, lacking) = (&fork.siblings[0], &fork.siblings[1]);
    for _ in 0..2 {
        let report = world.json(&["detach", &own.id]);
        assert_eq!(report["independent"], true, "{report:#}");
    }
    assert_eq!(lacking.status(), "RUNNING");
    assert!(server(&world).is_some_and(processes::kill));
    within(10, "the end of who lacks memory", || {
        lacking.status() == "STOPPED"
    });
    assert_eq!(own.status(), "RUNNING");
    assert_eq!(source.status(), "RUNNING");
    fork.remove(&world);
    // A new one is started in its place.
    let fork = Fork::of(test, &world, "x", "t", &["-n", "2"]);
    fork.remove(&world);
}

fn shim_killed(test: &Test) {
    let world = World::new(test);
    let source = Container::big(test, "a", 32);
    world.checkpoint(&source.id, "x");
    let fork = Fork::of(test, &world, "x", "s", &["-n", "2"]);
    let (other, victim) = (&fork.siblings[0], &fork.siblings[1]);
    let shim = processes::shim_of(&victim.id).expect("its shim");
    assert!(processes::kill(shim));
    let runs = |line: &str| line.starts_with(&victim.id) && line.contains("RUNNING");
    within(10, "the end of its container", || {
        !ctr::ok(&["task", "ls"]).lines().any(runs)
    });
    assert_eq!(other.status(), "RUNNING");
    let report = world.json(&["detach", &other.id]);
    assert_eq!(report["independent"], true, "{report:#}");
    assert_eq!(other.status(), "RUNNING");
    world.json(&["rm", "--forks-of", "x"]);
}

fn checkpointed(test: &Test) {
    let world = World::new(test);
    let source = Container::big(test, "a", 32);
    world.checkpoint(&source.id, "x");
    let fork = Fork::of(test, &world, "x", "s", &[]);
    world.checkpoint(&fork.siblings[0].id, "y");
    let diff = world.json(&["diff", "x", "y"]);
    // 32 MiB are 8,192 pages: none of them may have become zeros.
    let differing = diff["memory"]["pages_differing"].as_u64();
    assert!(differing.is_some_and(|pages| pages < 2000), "{differing:?}");
    world.json(&["verify", "y"]);
    fork.remove(&world);
}
