//! The command, killed at many moments: the container lives, the store is sound,
//! and what was left goes with the next sweep.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::verbs::World;
use crate::common::container::Container;
use crate::common::ctr::{self, within};
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("killed_while_it_makes_a_world", checkpoint),
        shared("killed_while_it_makes_the_only_copy", stop),
        shared("killed_while_it_sweeps", gc),
        shared("killed_while_it_restores", restore),
    ]
}

/// How many moments of each.
const MOMENTS: u32 = 14;

fn begin(world: &World, arguments: &[&str]) -> Child {
    let mut command = Command::new("world");
    command.args(arguments).env("WORLD_STORE", &world.store);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("run world")
}

/// Runs a command for so long, then kills it. Whether it had ended by itself.
fn kill_after(world: &World, arguments: &[&str], time: Duration) -> bool {
    let mut child = begin(world, arguments);
    std::thread::sleep(time);
    let ended = child.try_wait().expect("look at it").is_some();
    let _ = child.kill();
    child.wait().expect("its end");
    ended
}

fn whole(world: &World, arguments: &[&str]) -> Duration {
    let begun = Instant::now();
    let status = begin(world, arguments).wait().expect("its end");
    assert!(status.success(), "{arguments:?}");
    begun.elapsed()
}

/// Nothing is damaged; what the dead left is told as such.
#[track_caller]
fn undamaged(world: &World) {
    let output = world.run(&["--format", "json", "fsck"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

/// After a sweep nothing of the dead is there. A shim may still be writing for one of them.
fn swept(world: &World) {
    within(20, "a clean store", || {
        world.json(&["gc"]);
        let work = world.store.join(".worldshim/work");
        let left = std::fs::read_dir(work).map_or(0, Iterator::count);
        left == 0 && world.json(&["fsck"])["findings"] == json!([])
    });
}

fn checkpoint(test: &Test) {
    let world = World::new(test);
    let container = Container::big(test, "a", 24);
    let first = world.checkpoint(&container.id, "x");
    let time = whole(&world, &["checkpoint", &container.id, "x"]);
    let mut killed = 0;
    for moment in 0..MOMENTS {
        let count = container.count();
        let arguments = ["checkpoint", &container.id, "x"];
        killed += u32::from(!kill_after(&world, &arguments, time * moment / MOMENTS));
        undamaged(&world);
        container.counts_past(count);
        world.json(&["verify", "x"]);
        // The shim may be at work for the dead one yet: then this one would be refused.
        within(30, "the next checkpoint", || {
            world
                .run(&["checkpoint", &container.id, "next"])
                .status
                .success()
        });
    }
    assert!(killed > MOMENTS / 2, "{killed} kills came in time");
    swept(&world);
    world.json(&["verify", "x"]);
    world.json(&["verify", &first[7..]]);
    world.json(&["restore", "x", "--id", &test.id("b")]);
}

/// Whenever it is killed, the container runs, or its world is in the store, or its directory is
/// where nothing sweeps it.
fn stop(test: &Test) {
    let world = World::new(test);
    let container = Container::counter(test, "a", &[]);
    let time = whole(&world, &["checkpoint", &container.id, "first"]);
    drop(container);
    for moment in 0..MOMENTS {
        let container = Container::counter(test, &format!("c{moment}"), &[]);
        let name = format!("x:{moment}");
        let arguments = ["checkpoint", &container.id, &name, "--stop"];
        kill_after(&world, &arguments, time * moment / MOMENTS);
        undamaged(&world);
        world.json(&["gc"]);
        let safe = || {
            let runs = container.status() == "RUNNING";
            let stored = world.run(&["verify", &name]).status.success();
            let rescued = world.store.join(".worldshim/rescued");
            let prefix = format!("checkpoint-{}-", container.id);
            let rescued = std::fs::read_dir(rescued).into_iter().flatten().flatten();
            let kept = rescued
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
                .any(|entry| entry.path().join("world/world.json").exists());
            runs || stored || kept
        };
        assert!(safe(), "moment {moment}: the state is lost");
        // The shim may end it a little later.
        std::thread::sleep(Duration::from_millis(300));
        assert!(safe(), "moment {moment}: the state is lost later");
        container.remove();
    }
    undamaged(&world);
}

/// What is there of the container is whole or goes by the ordinary commands; the world can be
/// restored again at once.
fn restore(test: &Test) {
    let world = World::new(test);
    let container = Container::big(test, "a", 24);
    world.checkpoint(&container.id, "x");
    let count = container.count();
    container.remove();
    let first = test.id("first");
    let time = whole(&world, &["restore", "x", "--id", &first]);
    Container { id: first }.remove();
    let mut killed = 0;
    for moment in 0..MOMENTS {
        let id = test.id(&format!("r{moment}"));
        let arguments = ["restore", "x", "--id", &id];
        killed += u32::from(!kill_after(&world, &arguments, time * moment / MOMENTS));
        undamaged(&world);
        // The shim may be at work for the dead one yet.
        std::thread::sleep(Duration::from_millis(500));
        if ctr::status(&id).as_deref() == Some("RUNNING") {
            Container { id: id.clone() }.goes_on_from(count - 2);
        }
        if ctr::ok(&["container", "ls", "-q"])
            .lines()
            .any(|line| line == id)
        {
            let said = world.refused(4, &arguments);
            assert!(said.contains("remove it"), "{said}");
            ctr::run(&["task", "rm", "--force", &id]);
            ctr::ok(&["container", "rm", &id]);
        }
        world.json(&arguments);
        let again = Container { id };
        again.goes_on_from(count - 2);
        again.remove();
    }
    assert!(killed > MOMENTS / 2, "{killed} kills came in time");
    swept(&world);
}

fn gc(test: &Test) {
    let world = World::new(test);
    let container = Container::counter(test, "a", &[]);
    world.checkpoint(&container.id, "kept");
    for moment in 0..MOMENTS {
        world.checkpoint(&container.id, "dropped");
        container.exec(&["sh", "-c", "head -c 200000 /dev/urandom >/file"]);
        world.json(&["rm", "dropped"]);
        kill_after(
            &world,
            &["gc"],
            Duration::from_micros(u64::from(moment) * 700),
        );
        undamaged(&world);
        world.json(&["verify", "kept"]);
    }
    swept(&world);
    container.counts_past(container.count());
}
