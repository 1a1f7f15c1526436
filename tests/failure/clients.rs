//! Clients, containerd and shims that die in the middle of a checkpoint.

use std::fs;
use std::process::{Child, Command};
use std::time::Duration;

use crate::common::config::Config;
use crate::common::container::Container;
use crate::common::ctr::{self, within};
use crate::common::processes;
use crate::common::rpc::Containerd;
use crate::common::suite::{Case, Test, alone};

pub fn cases() -> Vec<Case> {
    vec![
        alone("client_gone_during_the_dump", during_the_dump),
        alone("client_gone_while_the_world_is_packed", while_packed),
        alone("client_gone_after_the_pause", after_the_pause),
        alone("containerd_killed_during_a_checkpoint", containerd_killed),
        alone("shim_killed_during_a_checkpoint", shim_killed),
    ]
}

/// A client's grace is short, so that nobody waits for 30 s.
const GRACE: &str = "[checkpoint]\nresume_grace_seconds = 1\n";

/// A counter whose memory and files make nothing about it quick.
fn slow(test: &Test) -> Container {
    let container = Container::big(test, "a", 256);
    container.exec(&["dd", "if=/dev/urandom", "of=/big", "bs=1M", "count=64"]);
    container
}

/// Waits until CRIU dumps.
fn dumping(container: &Container) {
    within(20, "a dump", || {
        processes::dumping_criu_of(&container.id).is_some()
    });
}

fn client(container: &Container, image: &str) -> Child {
    let words = [
        "container",
        "checkpoint",
        "--rw",
        "--task",
        &container.id,
        image,
    ];
    // Without `timeout` in between: it is ctr that is to die.
    Command::new("ctr").args(words).spawn().expect("run ctr")
}

fn kill(mut client: Child) {
    client.kill().expect("kill ctr");
    client.wait().expect("wait for ctr");
}

fn temporary_worlds() -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir("/tmp").expect("list /tmp").flatten();
    let worlds = entries.filter(|entry| {
        entry
            .file_name()
            .to_string_lossy()
            .starts_with("ctrd-checkpoint")
    });
    worlds.map(|entry| entry.path()).collect()
}

/// The container goes on by itself, and another checkpoint of it works.
fn recovers(test: &Test, container: &Container) {
    within(20, "running again", || container.status() == "RUNNING");
    container.counts_past(container.count());
    within(20, "the end of the temporary world", || {
        temporary_worlds().is_empty()
    });
    within(20, "another checkpoint", || {
        let path = test.path(&format!("again{}", crate::common::container::unique()));
        Containerd::connect()
            .checkpoint_to(&container.id, &path)
            .is_ok()
    });
    container.counts_past(container.count());
}

fn during_the_dump(test: &Test) {
    let _config = Config::set(GRACE);
    let container = slow(test);
    let client = client(&container, &test.image("a"));
    dumping(&container);
    kill(client);
    recovers(test, &container);
}

fn while_packed(test: &Test) {
    let _config = Config::set(GRACE);
    let container = slow(test);
    let client = client(&container, &test.image("a"));
    within(20, "a whole world", || {
        temporary_worlds()
            .iter()
            .any(|world| world.join("world.json").exists())
    });
    kill(client);
    recovers(test, &container);
}

/// Nothing tells such a pause from a person's own: it stays until somebody resumes.
fn after_the_pause(test: &Test) {
    let _config = Config::set(GRACE);
    let container = Container::counter(test, "a", &[]);
    Containerd::connect().pause(&container.id).expect("pause");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(container.status(), "PAUSED");
    Containerd::connect().resume(&container.id).expect("resume");
    recovers(test, &container);
}

fn daemon(verb: &str) {
    let status = Command::new("lab-containerd").arg(verb).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "lab-containerd {verb}"
    );
}

fn containerd_killed(test: &Test) {
    let _config = Config::set(GRACE);
    let container = slow(test);
    let count = container.count();
    let client = client(&container, &test.image("a"));
    dumping(&container);
    daemon("kill");
    kill(client);
    daemon("start");
    within(20, "running again", || container.status() == "RUNNING");
    container.counts_past(count);
    recovers(test, &container);
}

fn shim_killed(test: &Test) {
    let container = slow(test);
    let (id, world) = (container.id.clone(), test.path("world"));
    let to = world.clone();
    let call = std::thread::spawn(move || Containerd::connect().checkpoint_to(&id, &to));
    dumping(&container);
    processes::kill(processes::shim_of(&container.id).expect("the shim"));
    assert!(call.join().expect("the call").is_err());
    within(20, "the end of the task", || {
        ctr::status(&container.id).is_none_or(|status| status != "RUNNING" && status != "PAUSED")
    });
    within(20, "the end of CRIU", || {
        processes::criu_anywhere_in(&world).is_none()
    });
    assert!(
        !world.join("world.json").exists(),
        "half a world passes for a whole one"
    );
}
