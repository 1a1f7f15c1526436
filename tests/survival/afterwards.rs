//! What can be done with a container that was brought back.

use std::process::Command;

use crate::common::container::Container;
use crate::common::ctr;
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("restored_pause_checkpoint_kill_delete", all_verbs),
        shared("restored_metrics_limits_and_oom", limits),
    ]
}

fn restored(test: &Test, options: &[&str]) -> Container {
    let (original, image) = (Container::counter(test, "a", options), test.image("a"));
    original.checkpoint(&image);
    let at = original.count();
    original.remove();
    let restored = Container::restore(test, "b", &image);
    restored.goes_on_from(at);
    restored
}

fn all_verbs(test: &Test) {
    let container = restored(test, &[]);
    assert_eq!(
        container
            .exec(&["sh", "-c", "echo $((6*7)); hostname"])
            .lines()
            .next(),
        Some("42")
    );
    ctr::ok(&["task", "pause", &container.id]);
    assert_eq!(container.status(), "PAUSED");
    let at = container.count();
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(container.count(), at, "paused");
    ctr::ok(&["task", "resume", &container.id]);
    container.counts_past(at);
    let before = container.before();
    container.checkpoint_to(test, "world");
    before.unharmed();
    ctr::ok(&["task", "kill", "-s", "KILL", &container.id]);
    ctr::within(10, "the end", || container.status() == "STOPPED");
    let output = ctr::run(&["task", "rm", &container.id]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("exit code 137"), "{said}");
    ctr::ok(&["container", "rm", &container.id]);
}

fn limits(test: &Test) {
    let container = restored(test, &["--memory-limit", "33554432", "--cpu-shares", "512"]);
    let metrics = ctr::ok(&["task", "metrics", &container.id]);
    let figure = |names: &[&str]| -> u64 {
        let line = metrics.lines().find(|line| {
            names
                .iter()
                .any(|name| line.split_whitespace().next() == Some(name))
        });
        let value = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        value.unwrap_or_else(|| panic!("none of {names:?} in {metrics}"))
    };
    assert!(figure(&["memory.usage_in_bytes", "memory.usage"]) > 0);
    assert!(figure(&["pids.current"]) > 0);
    assert_eq!(
        figure(&["memory.limit_in_bytes", "memory.usage_limit"]),
        32 << 20
    );
    let events = test.path("events");
    let mut listener = Command::new("ctr")
        .arg("events")
        .stdout(std::fs::File::create(&events).expect("a file"))
        .spawn()
        .expect("ctr events");
    std::thread::sleep(std::time::Duration::from_millis(500));
    let exec = ctr::run(&[
        "task",
        "exec",
        "--exec-id",
        "hog",
        &container.id,
        "tail",
        "/dev/zero",
    ]);
    assert_eq!(exec.status.code(), Some(137), "the exec runs out of memory");
    ctr::within(10, "an event /tasks/oom", || {
        let told = std::fs::read_to_string(&events).unwrap_or_default();
        told.lines()
            .any(|line| line.contains("/tasks/oom") && line.contains(&container.id))
    });
    let _ = listener.kill();
    let _ = listener.wait();
}
