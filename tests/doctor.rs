//! `world doctor`, run as a person or a program runs it. Needs root.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// One at a time: a doctor's mounts are there while it works.
static DOCTOR: Mutex<()> = Mutex::new(());

fn doctor(arguments: &[&str]) -> Output {
    let _alone = DOCTOR.lock().unwrap_or_else(PoisonError::into_inner);
    run_doctor(arguments)
}

fn run_doctor(arguments: &[&str]) -> Output {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test needs root: the checks make cgroups and mounts"
    );
    Command::new(env!("CARGO_BIN_EXE_world"))
        .args(["doctor", "--address", "/nowhere/containerd.sock"])
        .args(arguments)
        .env_remove("WORLD_LOG")
        .output()
        .expect("run world doctor")
}

fn checks(output: &Output) -> Vec<Value> {
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON on stdout");
    report["checks"].as_array().expect("checks").clone()
}

fn status_of<'a>(checks: &'a [Value], name: &str) -> &'a str {
    checks
        .iter()
        .find(|check| check["name"] == name)
        .unwrap_or_else(|| panic!("no check {name}"))["status"]
        .as_str()
        .expect("a status")
}

#[test]
fn a_host_without_containerd_fails_and_is_told_what_to_do() {
    let output = doctor(&["--format", "json"]);
    let checks = checks(&output);
    for check in &checks {
        let well = check["status"] == "ok";
        assert_eq!(
            well,
            check["fix"].is_null(),
            "a fix for each problem: {check}"
        );
        assert!(!check["found"].as_str().unwrap().is_empty(), "{check}");
    }
    // What this host must have for any test to mean something.
    for name in [
        "root",
        "kernel",
        "pidfd",
        "seccomp",
        "cgroup",
        "cgroup-freeze",
        "overlayfs",
    ] {
        assert_eq!(status_of(&checks, name), "ok", "{name}: {checks:#?}");
    }
    assert_eq!(status_of(&checks, "containerd"), "fail");
    assert_eq!(
        output.status.code(),
        Some(8),
        "the exit status of an unfit host"
    );
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("world: "), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn words_say_the_same() {
    let output = doctor(&[]);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines: Vec<_> = text.lines().collect();
    let containerd = lines
        .iter()
        .position(|line| line.starts_with("fail  containerd "))
        .expect("a line on containerd");
    assert!(lines[containerd].contains("/nowhere/containerd.sock"));
    assert!(lines[containerd + 1].trim_start().starts_with("fix: "));
}

#[test]
fn nothing_stays() {
    let mounts = || {
        fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .lines()
            .count()
    };
    let _alone = DOCTOR.lock().unwrap_or_else(PoisonError::into_inner);
    let before = mounts();
    assert!(!run_doctor(&[]).stdout.is_empty());
    assert_eq!(mounts(), before);
    for hierarchy in [
        "/sys/fs/cgroup",
        "/sys/fs/cgroup/freezer",
        "/sys/fs/cgroup/memory",
    ] {
        for entry in fs::read_dir(hierarchy).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // A doctor outside of this test may be at work: then its process lives.
            let pid = name.strip_prefix("worldshim-doctor-").map(str::to_owned);
            assert!(
                pid.is_none_or(|pid| Path::new("/proc").join(pid).exists()),
                "left over: {hierarchy}/{name}"
            );
        }
    }
}

#[test]
fn a_wrong_argument_is_a_usage_error() {
    let output = doctor(&["--nonsense"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
}
