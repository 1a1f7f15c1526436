//! CRIU and the shim's helper, killed at many moments.
//!
//! The moments are spread over a dump that was measured first, so that they
//! reach all its stages on a slow machine, too.

use std::path::Path;
use std::time::{Duration, Instant};

use containerd_client::tonic::Status;

use crate::common::container::Container;
use crate::common::processes;
use crate::common::rpc::Containerd;
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("criu_killed_at_many_moments", criu),
        shared("helper_killed_at_many_moments", helper),
    ]
}

/// How many moments.
const MOMENTS: u32 = 16;

type Find = fn(&str) -> Option<i32>;

fn criu(test: &Test) {
    study(test, "CRIU", processes::dumping_criu_of);
}

fn helper(test: &Test) {
    study(test, "the helper", processes::helper_of);
}

fn study(test: &Test, what: &str, find: Find) {
    let container = Container::counter(test, "a", &[]);
    let whole = a_whole_dump(test, &container);
    let (mut failed, mut finished) = (0, 0);
    for moment in 0..MOMENTS {
        let world = test.path(&format!("world{moment}"));
        let before = container.before();
        let result = kill_during(&container, &world, whole * moment / MOMENTS, find);
        before.unharmed();
        match result {
            Err(error) => {
                failed += 1;
                let said = error.message();
                assert!(said.contains("kill") || said.contains("died"), "{said}");
                assert!(!world.exists(), "a partial world stays after {said}");
            }
            Ok(()) => {
                finished += 1;
                assert!(world.join("world.json").exists());
            }
        }
    }
    println!("{what} killed: {failed} checkpoints failed, {finished} were done before");
    assert!(failed > 0, "no kill of {what} came in time");
    // And after all that, one that succeeds.
    container.checkpoint_to(test, "last");
}

fn a_whole_dump(test: &Test, container: &Container) -> Duration {
    let begun = Instant::now();
    let result = Containerd::connect().checkpoint_to(&container.id, &test.path("first"));
    result.expect("a checkpoint that nobody disturbs");
    begun.elapsed()
}

/// Kills what `find` finds once `delay` has passed since the helper was there.
fn kill_during(
    container: &Container,
    world: &Path,
    delay: Duration,
    find: Find,
) -> Result<(), Status> {
    let (id, to) = (container.id.clone(), world.to_owned());
    let call = std::thread::spawn(move || Containerd::connect().checkpoint_to(&id, &to));
    while !call.is_finished() && processes::helper_of(&container.id).is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(delay);
    while !call.is_finished() {
        if find(&container.id).is_some_and(processes::kill) {
            break;
        }
    }
    call.join().expect("the call")
}
