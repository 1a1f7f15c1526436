//! Forks of forks, and their worlds elsewhere.

use super::siblings::Fork;
use super::verbs::World;
use crate::common::container::Container;
use crate::common::ctr;
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![shared(
        "a_fork_of_a_fork_of_a_fork_is_whole_elsewhere",
        three,
    )]
}

/// Everything below /t and what was done to /etc, as one text.
const LOOK: &str = "cd /; for f in $(find t etc -xdev | sort | grep -v machine-id); do \
    [ -f $f ] && [ ! -L $f ] && md5sum $f; stat -c '%n %a %u %g %F' $f; done";

fn three(test: &Test) {
    let world = World::new(test);
    let source = Container::counter(test, "a", &[]);
    source.exec(&[
        "sh",
        "-c",
        "mkdir -p /t/kept /t/gone/deep /t/turned /t/plain; echo 1 >/t/kept/one; echo 1 >/t/gone/deep/one; \
         echo 1 >/t/turned/one; echo 1 >/t/changed; ln -s changed /t/link; ln /t/changed /t/hard; \
         echo 1 >/t/file; chmod 600 /t/file; rm /etc/group",
    ]);
    let first = Fork::of(test, &world, &source.id, "s", &[]);
    let steps = [
        // Over what the world before has in the layer that is shared, and the image below.
        "echo 2 >>/t/changed; rm -r /t/gone; rm -r /t/turned; echo 2 >/t/turned; rm /etc/passwd; \
         mkdir /t/new; echo 2 >/t/new/two; chmod 640 /t/file; rm -r /t/plain; echo 2 >/t/plain",
        "mkdir /t/gone; echo 3 >/t/gone/three; rm /t/turned; mkdir /t/turned; echo 3 >/t/turned/x; \
         echo back >/etc/passwd; mv /t/new/two /t/new/three; chown 5:6 /t/kept",
        "rm -r /t/new; echo 4 >>/t/changed; echo 4 >/t/kept/four; rm /t/gone/three; rm /t/link; \
         ln -s /etc/passwd /t/link; rm /etc/shadow; mkdir /etc/shadow",
    ];
    let mut forks = vec![first];
    for (number, step) in steps.iter().enumerate() {
        let last = &forks[forks.len() - 1].siblings[0];
        let seed = last.exec(&["cat", "/run/worldshim/generation"]);
        last.exec(&["sh", "-c", step]);
        let looks = last.exec(&["sh", "-c", LOOK]);
        let count = last.count();
        let next = Fork::of(test, &world, &last.id, &format!("g{number}x"), &["-n", "2"]);
        for sibling in &next.siblings {
            assert_eq!(sibling.exec(&["sh", "-c", LOOK]), looks);
            sibling.goes_on_from(count);
            assert_ne!(sibling.exec(&["cat", "/run/worldshim/generation"]), seed);
        }
        forks.push(next);
    }
    let last = &forks[forks.len() - 1].siblings[1];
    let digest = world.checkpoint(&last.id, "last");
    let inspected = world.json(&["inspect", "last"]);
    assert_eq!(inspected["digest"], digest.as_str());
    let looks = last.exec(&["sh", "-c", LOOK]);
    let names: Vec<String> = forks
        .iter()
        .map(|fork| fork.report["files"]["snapshot"].to_string())
        .collect();
    for fork in forks {
        fork.remove(&world);
    }
    let listed = ctr::ok(&["snapshots", "ls"]);
    let still = |name: &&String| listed.contains(name.trim_matches('"'));
    assert_eq!(names.iter().find(still), None);
    elsewhere(test, &world, &looks);
    world.sound();
}

/// In another store, with nothing in containerd but the image.
fn elsewhere(test: &Test, world: &World, looks: &str) {
    let file = test.path("world.tar");
    let file = file.to_str().expect("UTF-8");
    world.json(&["export", "last", file]);
    let other = World {
        store: test.path("other-store"),
    };
    other.json(&["import", file, "last"]);
    let id = test.id("there");
    other.json(&["restore", "last", "--id", &id]);
    let there = Container { id };
    assert_eq!(there.exec(&["sh", "-c", LOOK]), looks);
    there.counts_past(there.count());
    let fork = Fork::of(test, &other, "last", "z", &[]);
    assert_eq!(fork.report["files"]["made"], true);
    assert_eq!(fork.siblings[0].exec(&["sh", "-c", LOOK]), looks);
    fork.remove(&other);
}
