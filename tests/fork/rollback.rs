//! Back to a former state, under the same id.

use super::siblings::{Fork, left};
use super::verbs::World;
use crate::common::container::Container;
use crate::common::ctr::{self, BUSYBOX};
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("a_container_goes_back", back),
        shared("a_sibling_goes_back", sibling),
        shared("a_world_that_does_not_fit_changes_nothing", misfit),
    ]
}

fn back(test: &Test) {
    let world = World::new(test);
    let container = Container::counter(test, "a", &["--label", "app=x"]);
    container.exec(&["sh", "-c", "echo before >/state"]);
    world.checkpoint(&container.id, "x");
    let count = container.count();
    container.counts_past(count + 20);
    container.exec(&["sh", "-c", "echo after >/state; echo new >/new"]);
    let report = world.json(&["rollback", &container.id, "x", "--keep", "undone"]);
    assert_eq!(report["id"], container.id.as_str());
    assert!(report["away_ns"].as_u64() > Some(0));
    assert_eq!(report["pid"].as_i64(), Some(container.pid().into()));
    container.goes_on_from(count - 2);
    assert!(container.count() < count + 20 + 600);
    assert_eq!(container.read("/state"), "before");
    assert!(!container.path("/new").exists());
    let info = ctr::ok(&["container", "info", &container.id]);
    assert!(info.contains("\"app\": \"x\""), "{info}");
    // And forward again; also of one that has ended.
    ctr::ok(&["task", "kill", "-s", "KILL", &container.id]);
    world.json(&["rollback", &container.id, "undone"]);
    container.goes_on_from(count + 20);
    assert_eq!(container.read("/state"), "after");
    // The next world is a delta on the one it went back to.
    world.checkpoint(&container.id, "y");
    container.remove();
    assert!(left(test).is_empty(), "{:?}", left(test));
    world.sound();
}

fn sibling(test: &Test) {
    let world = World::new(test);
    let source = Container::counter(test, "a", &[]);
    source.exec(&["sh", "-c", "echo first >/state"]);
    world.checkpoint(&source.id, "x");
    let fork = Fork::of(test, &world, "x", "s", &[]);
    let sibling = &fork.siblings[0];
    sibling.exec(&["sh", "-c", "echo second >/state"]);
    world.checkpoint(&sibling.id, "y");
    sibling.exec(&["sh", "-c", "echo third >/state"]);
    for (name, state) in [("y", "second"), ("x", "first"), ("y", "second")] {
        world.json(&["rollback", &sibling.id, name]);
        assert_eq!(sibling.read("/state"), state);
        sibling.counts_past(sibling.count());
    }
    let again = Fork::of(test, &world, &sibling.id, "t", &[]);
    assert_eq!(again.siblings[0].read("/state"), "second");
}

fn misfit(test: &Test) {
    let world = World::new(test);
    let source = Container::counter(test, "a", &[]);
    world.checkpoint(&source.id, "x");
    let other = Container::run(
        test,
        "b",
        &["--mount", "type=tmpfs,src=tmpfs,dst=/more,options=rw"],
        BUSYBOX,
        &["sleep", "1000"],
    );
    let pid = other.pid();
    let said = world.refused(2, &["rollback", &other.id, "x"]);
    assert!(said.contains("/more"), "{said}");
    assert_eq!(other.pid(), pid);
    assert_eq!(other.status(), "RUNNING");
    world.refused(3, &["rollback", &other.id, "none"]);
    other.remove();
    source.remove();
    assert!(left(test).is_empty(), "{:?}", left(test));
}
