//! Making a container's cgroups, and applying limits to them through libcgroups.

use std::io;
use std::path::Path;

use libcgroups::common::{
    AnyCgroupManager, CgroupConfig, CgroupManager, ControllerOpt, create_cgroup_manager,
};
use oci_spec::runtime::LinuxResources;
use rustix::process::Pid;

use super::file;
use super::layout::Mode;
use super::paths::{Cgroup, Dir};
use crate::error::{Error, ErrorKind, IoContext, Result};

impl Cgroup {
    /// Makes the cgroups of a spec's `cgroupsPath` and applies the limits, before
    /// any process is in them.
    ///
    /// A cgroup that is left over and empty is made anew, so that no old limit or
    /// counter stays. Fails with [`ErrorKind::AlreadyExists`] when processes live
    /// in it. On failure nothing of the container's own cgroup remains.
    pub fn create(cgroups_path: &Path, resources: &LinuxResources) -> Result<Cgroup> {
        let cgroup = Cgroup::at(cgroups_path)?;
        let members = cgroup.pids()?;
        if !members.is_empty() {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!(
                    "cgroup {} is in use by {} process(es), the first is pid {}",
                    cgroup.name(),
                    members.len(),
                    members[0].as_raw_nonzero()
                ),
            ));
        }
        cgroup.remove()?;
        let made = cgroup
            .make_dirs()
            .and_then(|()| cgroup.apply(cgroups_path, resources));
        if let Err(error) = made {
            // What remains would be an empty directory; the failure itself matters more.
            let _ = cgroup.remove();
            return Err(error);
        }
        Ok(cgroup)
    }

    /// Changes limits; those that `resources` does not name stay as they are.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        let dir = self.dirs.first().ok_or_else(|| self.gone())?;
        let relative = dir
            .path
            .strip_prefix(&dir.mount)
            .map_err(|error| Error::caused_by(ErrorKind::Internal, self.name(), error))?;
        if !self.exists() {
            return Err(self.gone());
        }
        self.apply(&Path::new("/").join(relative), resources)
    }

    /// Moves a process (all its threads) into the cgroup, in every hierarchy.
    pub fn add(&self, pid: Pid) -> Result<()> {
        let pid = pid.as_raw_nonzero().to_string();
        for procs in self.procs_files() {
            file::write(&procs, &pid)?;
        }
        Ok(())
    }

    fn make_dirs(&self) -> Result<()> {
        for dir in &self.dirs {
            dir.make(self.mode)?;
        }
        Ok(())
    }

    fn apply(&self, cgroups_path: &Path, resources: &LinuxResources) -> Result<()> {
        let options = ControllerOpt {
            resources,
            disable_oom_killer: self.oom_killer_disabled(resources),
            oom_score_adj: None,
            freezer_state: None,
        };
        manager(cgroups_path)?.apply(&options).map_err(|error| {
            Error::caused_by(
                ErrorKind::Io,
                format!("apply limits to cgroup {}", self.name()),
                error,
            )
        })?;
        self.restrict_devices(resources)
    }

    /// What the resources say, else what is so now: libcgroups always writes it on v1.
    fn oom_killer_disabled(&self, resources: &LinuxResources) -> bool {
        let wanted = resources
            .memory()
            .as_ref()
            .and_then(|memory| memory.disable_oom_killer());
        wanted.unwrap_or_else(|| {
            self.mode == Mode::V1
                && self
                    .dir("memory")
                    .and_then(|dir| file::flat_keyed(&dir.join("memory.oom_control")))
                    .and_then(|control| control.get("oom_kill_disable").copied())
                    == Some(1)
        })
    }

    pub(super) fn gone(&self) -> Error {
        Error::new(
            ErrorKind::NotFound,
            format!("cgroup {} does not exist", self.name()),
        )
    }
}

/// libcgroups' view of the same cgroup, without systemd.
fn manager(cgroups_path: &Path) -> Result<AnyCgroupManager> {
    let config = CgroupConfig {
        cgroup_path: cgroups_path.to_owned(),
        systemd_cgroup: false,
        container_name: String::new(),
    };
    create_cgroup_manager(config).map_err(|error| {
        Error::caused_by(
            ErrorKind::HostUnfit,
            format!("manage cgroup {}", cgroups_path.display()),
            error,
        )
    })
}

impl Dir {
    /// Makes the directory and those above it. On v1 a cpuset takes over its
    /// parent's CPUs and memory nodes (else no process can join); on v2 each
    /// directory above hands its controllers down.
    fn make(&self, mode: Mode) -> Result<()> {
        let below = self
            .path
            .strip_prefix(&self.mount)
            .map_err(|error| Error::caused_by(ErrorKind::Internal, self.path.display(), error))?;
        let mut current = self.mount.clone();
        for name in below {
            if mode == Mode::V2 {
                hand_down_controllers(&current);
            }
            let parent = current.clone();
            current.push(name);
            make_one(&current)?;
            if self.controllers.contains(&"cpuset") {
                inherit(&parent, &current, "cpuset.cpus")?;
                inherit(&parent, &current, "cpuset.mems")?;
            }
        }
        Ok(())
    }
}

fn make_one(path: &Path) -> Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.context(|| format!("make cgroup {}", path.display())),
    }
}

fn inherit(parent: &Path, child: &Path, name: &str) -> Result<()> {
    let own = file::text(&child.join(name)).unwrap_or_default();
    let above = file::text(&parent.join(name)).unwrap_or_default();
    if own.trim().is_empty() && !above.trim().is_empty() {
        file::write(&child.join(name), above.trim())?;
    }
    Ok(())
}

/// Best effort, one by one: a controller may be in use elsewhere (cpu with
/// real-time tasks), and then the limit that needs it fails with its own name.
fn hand_down_controllers(dir: &Path) {
    let offered = file::text(&dir.join("cgroup.controllers")).unwrap_or_default();
    let handed = file::text(&dir.join("cgroup.subtree_control")).unwrap_or_default();
    for controller in offered.split_whitespace() {
        if handed.split_whitespace().any(|name| name == controller) {
            continue;
        }
        if let Err(error) = file::write(
            &dir.join("cgroup.subtree_control"),
            &format!("+{controller}"),
        ) {
            tracing::debug!(%error, controller, "cgroup controller not handed down");
        }
    }
}
