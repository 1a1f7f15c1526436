//! Cgroups: which version and controllers, and whether a process can be
//! put in one, frozen, thawed and killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use oci_spec::runtime::LinuxResources;
use rustix::process::Pid;

use super::Check;
use crate::cgroup::{Cgroup, Layout, Mode};
use crate::error::{IoContext, Result};

/// Its pid follows, so that what a killed run left can be told from a live one.
const PREFIX: &str = "worldshim-doctor-";
const NEEDED_V1: [&str; 5] = ["cpu", "devices", "freezer", "memory", "pids"];
const NEEDED_V2: [&str; 3] = ["cpu", "memory", "pids"];
const WANTED_V1: [&str; 3] = ["blkio", "cpuacct", "cpuset"];
const WANTED_V2: [&str; 2] = ["cpuset", "io"];

pub(super) fn checks() -> Vec<Check> {
    let layout = match Layout::of_host() {
        Ok(layout) => layout,
        Err(error) => {
            return vec![Check::fail(
                "cgroup",
                error.to_string(),
                "mount cgroup2 at /sys/fs/cgroup (systemd does), or the v1 controllers below it",
            )];
        }
    };
    vec![controllers(&layout), writable()]
}

fn controllers(layout: &Layout) -> Check {
    let there = layout.controllers();
    let missing = |wanted: &[&'static str]| -> Vec<&str> {
        wanted
            .iter()
            .copied()
            .filter(|name| !there.iter().any(|have| have == name))
            .collect()
    };
    let (version, needed, wanted) = match layout.mode() {
        Mode::V1 => ("v1", missing(&NEEDED_V1), missing(&WANTED_V1)),
        Mode::V2 => ("v2", missing(&NEEDED_V2), missing(&WANTED_V2)),
    };
    let found = format!("{version}, controllers: {}", there.join(" "));
    let fix = |names: &[&str]| {
        let names = names.join(", ");
        format!(
            "enable the controllers {names}: in the kernel, and not off by cgroup_disable= on its command line"
        )
    };
    if !needed.is_empty() {
        Check::fail("cgroup", found, fix(&needed))
    } else if !wanted.is_empty() {
        Check::warn("cgroup", found, fix(&wanted))
    } else {
        Check::ok("cgroup", found)
    }
}

fn writable() -> Check {
    match try_out() {
        Ok(stood_still_after) => Check::ok(
            "cgroup-freeze",
            format!(
                "made a cgroup, froze a process in it after {} us, thawed it, killed it",
                stood_still_after.as_micros()
            ),
        ),
        Err(error) => Check::fail(
            "cgroup-freeze",
            error.to_string(),
            "run as root, with /sys/fs/cgroup mounted writable and the freezer available",
        ),
    }
}

/// Does all that a container's life needs, and times the freezing.
fn try_out() -> Result<Duration> {
    remove_what_dead_runs_left();
    let path = PathBuf::from(format!("/{PREFIX}{}", std::process::id()));
    let owned = Owned(Cgroup::create(&path, &LinuxResources::default())?);
    let sleeper = Sleeper::start()?;
    owned.0.add(Pid::from_child(&sleeper.0))?;
    let frozen = owned.0.freeze(Duration::from_secs(1))?;
    let took = frozen.since() - frozen.asked();
    frozen.thaw()?;
    owned.0.kill_all()?;
    Ok(took)
}

/// The cgroup, removed with its processes at the end.
struct Owned(Cgroup);

impl Drop for Owned {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill_all().and_then(|()| self.0.remove()) {
            tracing::warn!(%error, "the test's cgroup stays");
        }
    }
}

/// The test's process, killed and reaped at the end.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Result<Sleeper> {
        let child = Command::new("sleep").arg("60").spawn();
        Ok(Sleeper(child.context(|| "run sleep")?))
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn remove_what_dead_runs_left() {
    let Ok(probe) = Cgroup::at(Path::new(PREFIX)) else {
        return;
    };
    for procs in probe.procs_files() {
        let Some(Ok(entries)) = procs.ancestors().nth(2).map(std::fs::read_dir) else {
            continue;
        };
        for name in entries.flatten().map(|entry| entry.file_name()) {
            let name = name.to_string_lossy();
            if let Some(pid) = name.strip_prefix(PREFIX)
                && !Path::new("/proc").join(pid).exists()
                && let Ok(stale) = Cgroup::at(Path::new(&*name))
                && let Err(error) = stale.kill_all().and_then(|()| stale.remove())
            {
                tracing::warn!(%error, "the cgroup of an earlier run stays");
            }
        }
    }
}
