//! Which cgroup hierarchies this host has, and where they are mounted.

use std::path::{Path, PathBuf};

use procfs::process::{MountInfo, Process};

use crate::error::{Error, ErrorKind, Result};

/// Where container runtimes look for cgroups.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// The v1 controllers a container gets a cgroup of its own in: those that
/// libcontainer manages, so that a restored container and a created one are alike.
const V1_CONTROLLERS: [&str; 12] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
];

/// Which version manages resources here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Controllers in v1 hierarchies; a v2 hierarchy may exist beside them
    /// ("hybrid"), without controllers.
    V1,
    /// One v2 hierarchy ("unified").
    V2,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// The v1 controllers of it that containers use; empty on v2.
    pub controllers: Vec<&'static str>,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Which cgroup of the hierarchy the mount shows as its top ("/" outside containers).
    pub root: PathBuf,
}

/// The hierarchies of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    mode: Mode,
    mounts: Vec<Mount>,
}

impl Layout {
    /// Reads this process's `/proc/self/mountinfo`.
    pub fn of_host() -> Result<Layout> {
        let mounts = Process::myself()
            .and_then(|me| me.mountinfo())
            .map_err(|error| Error::caused_by(ErrorKind::Io, "read /proc/self/mountinfo", error))?;
        Layout::from_mounts(mounts.iter())
    }

    fn from_mounts<'a>(mounts: impl Iterator<Item = &'a MountInfo> + Clone) -> Result<Layout> {
        let unified = mounts
            .clone()
            .find(|m| m.fs_type == "cgroup2" && m.mount_point == Path::new(CGROUP_ROOT));
        if let Some(mount) = unified {
            return Ok(Layout {
                mode: Mode::V2,
                mounts: vec![Mount::new(mount, Vec::new())],
            });
        }
        let mut found: Vec<Mount> = Vec::new();
        for mount in mounts.filter(|m| m.fs_type == "cgroup" && under_root(m)) {
            let controllers: Vec<_> = V1_CONTROLLERS
                .into_iter()
                .filter(|name| mount.super_options.contains_key(*name))
                .filter(|name| !found.iter().any(|m| m.controllers.contains(name)))
                .collect();
            if !controllers.is_empty() {
                found.push(Mount::new(mount, controllers));
            }
        }
        if found.is_empty() {
            return Err(Error::new(
                ErrorKind::HostUnfit,
                format!("no cgroup hierarchy with controllers is mounted under {CGROUP_ROOT}"),
            ));
        }
        Ok(Layout {
            mode: Mode::V1,
            mounts: found,
        })
    }

    /// Which version manages resources here.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    pub(super) fn mounts(&self) -> &[Mount] {
        &self.mounts
    }

    /// The controllers a container can be limited by: on v1 those mounted, on
    /// v2 those the top cgroup offers.
    pub fn controllers(&self) -> Vec<String> {
        match self.mode {
            Mode::V1 => self
                .mounts
                .iter()
                .flat_map(|m| m.controllers.iter().map(|name| (*name).to_owned()))
                .collect(),
            Mode::V2 => super::file::text(&self.mounts[0].point.join("cgroup.controllers"))
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
        }
    }
}

fn under_root(mount: &MountInfo) -> bool {
    mount.mount_point.starts_with(CGROUP_ROOT)
}

impl Mount {
    fn new(mount: &MountInfo, controllers: Vec<&'static str>) -> Mount {
        Mount {
            controllers,
            point: mount.mount_point.clone(),
            root: PathBuf::from(&mount.root),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(lines: &[&str]) -> Result<Layout> {
        let mounts: Vec<_> = lines
            .iter()
            .map(|line| MountInfo::from_line(line).unwrap())
            .collect();
        Layout::from_mounts(mounts.iter())
    }

    #[test]
    fn unified() {
        let found =
            layout(&["31 23 0:28 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw"]).unwrap();
        assert_eq!(found.mode(), Mode::V2);
        assert_eq!(found.mounts()[0].point, Path::new("/sys/fs/cgroup"));
    }

    #[test]
    fn hybrid_with_co_mounted_controllers_and_a_named_hierarchy() {
        let found = layout(&[
            "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755",
            "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
            "33 31 0:33 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer",
            "34 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd",
            "35 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
            "36 31 0:33 / /mnt/again rw - cgroup cgroup rw,freezer",
        ])
        .unwrap();
        assert_eq!(found.mode(), Mode::V1);
        let names: Vec<_> = found
            .mounts()
            .iter()
            .map(|m| m.controllers.clone())
            .collect();
        assert_eq!(names, [vec!["cpu", "cpuacct"], vec!["freezer"]]);
    }

    #[test]
    fn nothing_mounted_is_the_hosts_fault() {
        let error = layout(&["31 23 0:28 / /tmp rw - tmpfs tmpfs rw"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HostUnfit);
    }
}
