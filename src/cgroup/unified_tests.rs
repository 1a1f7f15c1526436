//! The v2 code on a real v2 hierarchy: the host's one, or that which hybrid
//! hosts have without controllers. Needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::layout::Mode;
use super::paths::{Cgroup, Dir};
use super::{Freezer, FreezerState};
use crate::ErrorKind;

const SECOND: Duration = Duration::from_secs(1);

/// A cgroup in the v2 hierarchy, removed with all in it at the end.
struct Owned(Cgroup);

impl Owned {
    fn new(name: &str) -> Owned {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test needs root: it makes cgroups"
        );
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let mount = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .find(|words| words[2] == "cgroup2")
            .map(|words| PathBuf::from(words[1]))
            .expect("a cgroup2 hierarchy, alone or beside v1 (hybrid)");
        let path = mount.join(format!("worldshim-unit-{name}-{}", std::process::id()));
        let cgroup = Cgroup {
            mode: Mode::V2,
            dirs: vec![Dir {
                controllers: Vec::new(),
                path: path.clone(),
                mount,
            }],
        };
        cgroup.remove().expect("remove what is left over");
        fs::create_dir(&path).expect("make a cgroup");
        Owned(cgroup)
    }

    fn path(&self) -> &Path {
        &self.0.dirs[0].path
    }

    fn shell(&self, script: &str) -> Shell {
        let child = Command::new("sh")
            .args(["-c", &format!("read go; {script}")])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start sh");
        let mut shell = Shell(child);
        self.0.add(Pid::from_child(&shell.0)).expect("join");
        drop(shell.0.stdin.take());
        shell
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.kill_all().expect("kill what the test left");
        self.0.remove().expect("remove the test's cgroup");
    }
}

struct Shell(Child);

impl Shell {
    fn succeeds(mut self) -> bool {
        self.0.wait().expect("wait for sh").success()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn state(freezer: &Freezer) -> FreezerState {
    freezer.state().expect("a state")
}

#[test]
fn freezes_thaws_and_kills() {
    let owned = Owned::new("freeze");
    let _busy = owned.shell("while :; do :; done");
    let freezer = owned.0.freezer().unwrap();
    assert_eq!(state(&freezer), FreezerState::Thawed);
    let frozen = owned.0.freeze(5 * SECOND).unwrap();
    assert_eq!(state(&freezer), FreezerState::Frozen);
    assert!(frozen.since() - frozen.asked() < SECOND);
    drop(frozen);
    assert_eq!(state(&freezer), FreezerState::Thawed);

    owned.0.freeze(5 * SECOND).unwrap().leave_frozen();
    assert_eq!(owned.0.pids().unwrap().len(), 1);
    let start = Instant::now();
    owned.0.kill_all().unwrap();
    assert!(start.elapsed() < SECOND);
    assert_eq!(owned.0.pids().unwrap(), []);
    owned.0.remove().unwrap();
    assert!(!owned.0.exists());
}

#[test]
fn a_cgroup_frozen_from_above_does_not_thaw() {
    let owned = Owned::new("above");
    let below = owned.path().join("below");
    fs::create_dir(&below).unwrap();
    let mut inner = owned.0.clone();
    inner.dirs[0].path = below;
    let frozen = owned.0.freeze(5 * SECOND).unwrap();
    let inner = inner.freezer().unwrap();
    assert_eq!(state(&inner), FreezerState::Frozen);
    assert_eq!(inner.thaw().unwrap_err().kind(), ErrorKind::WrongState);
    drop(frozen);
    assert_eq!(state(&inner), FreezerState::Thawed);
}

#[test]
fn statistics_are_there_without_controllers() {
    let owned = Owned::new("stats");
    let stats = owned.0.stats().unwrap();
    assert_eq!(stats.type_url, "io.containerd.cgroups.v2.Metrics");
    assert!(!stats.value.is_empty());
}

#[test]
fn device_rules_hold_and_are_replaced() {
    let owned = Owned::new("devices");
    let restrict = |json: &str| {
        let resources = serde_json::from_str(json).expect("resources");
        owned.0.restrict_devices(&resources).expect("restrict");
    };
    // /dev/kmsg is 1:11: a device no container gets.
    let open = "exec 3</dev/null && exec 4</dev/kmsg";
    assert!(owned.shell(open).succeeds(), "without rules all is allowed");
    restrict(r#"{"devices":[{"allow":false,"access":"rwm"}]}"#);
    assert!(!owned.shell(open).succeeds(), "denied");
    assert!(
        owned.shell("exec 3</dev/null").succeeds(),
        "null is for all"
    );
    restrict("{}");
    assert!(!owned.shell(open).succeeds(), "no rules change none");
    restrict(
        r#"{"devices":[{"allow":false,"access":"rwm"},
            {"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]}"#,
    );
    assert!(owned.shell(open).succeeds(), "allowed to read");
    assert!(!owned.shell("exec 3>/dev/kmsg").succeeds(), "not to write");
    restrict(r#"{"devices":[{"allow":true,"access":"rwm"}]}"#);
    assert!(owned.shell("exec 3>/dev/kmsg").succeeds(), "privileged");
}
