//! containerd's command line client.

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Our runtime.
pub const RUNTIME: &str = "io.containerd.world.v1";
pub const BUSYBOX: &str = "docker.io/library/busybox:latest";
pub const PYTHON: &str = "docker.io/library/python:latest";

/// No single command takes longer than this, in seconds.
const PATIENCE: &str = "90";

/// A `ctr` command that is ended after a while.
pub fn command<S: AsRef<OsStr>>(words: &[S]) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["-k", "2", PATIENCE, "ctr"])
        .args(words)
        .stdin(Stdio::null());
    command
}

/// Runs `ctr`.
pub fn run<S: AsRef<OsStr>>(words: &[S]) -> Output {
    command(words).output().expect("run ctr")
}

/// Runs `ctr`, which must succeed, and gives its standard output.
#[track_caller]
pub fn ok<S: AsRef<OsStr>>(words: &[S]) -> String {
    let output = run(words);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "ctr {} failed: {}{said}",
        shown(words),
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

/// Runs `ctr`, which must fail, and gives what it says.
#[track_caller]
pub fn fails<S: AsRef<OsStr>>(words: &[S]) -> String {
    let output = run(words);
    assert!(
        !output.status.success(),
        "ctr {} did not fail",
        shown(words)
    );
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn shown<S: AsRef<OsStr>>(words: &[S]) -> String {
    let words: Vec<_> = words
        .iter()
        .map(|word| word.as_ref().to_string_lossy())
        .collect();
    words.join(" ")
}

/// Waits until `reached`, for `seconds` at most.
#[track_caller]
pub fn within(seconds: u64, what: &str, mut reached: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !reached() {
        assert!(Instant::now() < end, "{what}: not within {seconds} s");
        sleep(Duration::from_millis(20));
    }
}

/// The status of a task as `ctr task ls` prints it.
pub fn status(id: &str) -> Option<String> {
    let list = ok(&["task", "ls"]);
    let mut rows = list
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|row| row.first() == Some(&id))?;
    row.get(2).map(|status| (*status).to_owned())
}

/// Kills a task and removes it and its container.
#[track_caller]
pub fn remove(id: &str) {
    run(&["task", "kill", "-s", "KILL", id]);
    within(20, &format!("end of {id}"), || {
        status(id).is_none_or(|status| status == "STOPPED")
    });
    run(&["task", "rm", id]);
    ok(&["container", "rm", id]);
}

/// Removes all tasks, containers and images whose names begin like this, and
/// complains of nothing.
pub fn remove_all(prefix: &str) {
    let ids = run(&["container", "ls", "-q"]);
    for id in String::from_utf8_lossy(&ids.stdout)
        .lines()
        .filter(|id| id.starts_with(prefix))
    {
        run(&["task", "rm", "--force", id]);
        run(&["container", "rm", id]);
    }
    let images = run(&["image", "ls", "-q"]);
    let ours = format!("example.test/{prefix}");
    for image in String::from_utf8_lossy(&images.stdout)
        .lines()
        .filter(|name| name.starts_with(&ours))
    {
        run(&["image", "rm", image]);
    }
}
