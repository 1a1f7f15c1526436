//! Siblings that wait, and siblings whose time is over.

use std::thread::sleep;
use std::time::Duration;

use super::siblings::{Fork, left};
use super::verbs::World;
use crate::common::container::Container;
use crate::common::ctr::{self, within};
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("paused_before_the_first_instruction", paused),
        shared("their_time_ends_them", ttl),
    ]
}

fn paused(test: &Test) {
    let world = World::new(test);
    let source = Container::counter(test, "a", &[]);
    world.checkpoint(&source.id, "x");
    let fork = Fork::of(test, &world, "x", "s", &["-n", "2", "--paused"]);
    for sibling in &fork.siblings {
        assert_eq!(sibling.status(), "PAUSED");
    }
    let counts: Vec<_> = fork.siblings.iter().map(Container::count).collect();
    assert_eq!(counts[0], counts[1], "neither has run");
    sleep(Duration::from_millis(500));
    for (sibling, count) in fork.siblings.iter().zip(counts) {
        assert_eq!(sibling.count(), count, "it runs");
        let generation = sibling.pid();
        let path = format!("/proc/{generation}/root/run/worldshim/generation");
        assert!(std::path::Path::new(&path).exists());
        ctr::ok(&["task", "resume", &sibling.id]);
        sibling.goes_on_from(count);
    }
    // One that is never resumed can be removed.
    let more = Fork::of(test, &world, "x", "t", &["--paused"]);
    more.remove(&world);
}

fn ttl(test: &Test) {
    let world = World::new(test);
    let source = Container::counter(test, "a", &[]);
    world.checkpoint(&source.id, "x");
    let short = Fork::of(test, &world, "x", "s", &["-n", "2", "--ttl", "10s"]);
    let long = Fork::of(test, &world, "x", "t", &["--ttl", "1h"]);
    assert!(short.report["expires"].is_string());
    for sibling in &short.siblings {
        assert_eq!(sibling.status(), "RUNNING");
    }
    for sibling in &short.siblings {
        within(30, "its end", || sibling.status() == "STOPPED");
    }
    let removed = world.json(&["rm", "--forks-of", "x", "--expired"]);
    assert_eq!(removed["removed"].as_array().map(Vec::len), Some(2));
    long.siblings[0].counts_past(long.siblings[0].count());
    let removed = world.json(&["rm", "--forks-of", "x"]);
    assert_eq!(removed["removed"].as_array().map(Vec::len), Some(1));
    source.remove();
    assert!(left(test).is_empty(), "{:?}", left(test));
}
