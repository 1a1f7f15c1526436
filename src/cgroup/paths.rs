//! From a process, or from a spec's `cgroupsPath`, to cgroup directories.

use std::path::{Component, Path, PathBuf};

use procfs::process::Process;
use rustix::process::Pid;

use super::layout::{Layout, Mode, Mount};
use crate::error::{Error, ErrorKind, Result};

/// One directory of a [`Cgroup`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dir {
    /// The v1 controllers of its hierarchy; empty on v2.
    pub controllers: Vec<&'static str>,
    /// The directory.
    pub path: PathBuf,
    /// Where its hierarchy is mounted: an ancestor of `path`, never `path` itself.
    pub mount: PathBuf,
}

/// The control groups of one container: a directory in each hierarchy.
///
/// It is a name, not an owner: dropping it changes nothing on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    pub(super) mode: Mode,
    pub(super) dirs: Vec<Dir>,
}

impl Cgroup {
    /// The cgroups that a spec's `cgroupsPath` means, whether they exist or not:
    /// that path under each hierarchy's mount point, as libcontainer makes them.
    ///
    /// Fails with [`ErrorKind::InvalidInput`] when the path names the top of the
    /// hierarchies or climbs out of them.
    pub fn at(cgroups_path: &Path) -> Result<Cgroup> {
        Cgroup::at_in(cgroups_path, &Layout::of_host()?)
    }

    pub(super) fn at_in(cgroups_path: &Path, layout: &Layout) -> Result<Cgroup> {
        let relative = below_top(cgroups_path)?;
        let dirs = layout
            .mounts()
            .iter()
            .map(|mount| Dir::new(mount, &relative))
            .collect();
        Ok(Cgroup {
            mode: layout.mode(),
            dirs,
        })
    }

    /// The cgroups a process is in now. A hierarchy in which it is at the top is left out.
    ///
    /// For a container prefer [`Cgroup::at`]: its init may have moved itself into
    /// a cgroup of its own below the container's (systemd does).
    pub fn of_pid(pid: Pid) -> Result<Cgroup> {
        let raw = pid.as_raw_nonzero().get();
        let memberships = Process::new(raw)
            .and_then(|process| process.cgroups())
            .map_err(|error| {
                Error::caused_by(
                    ErrorKind::NotFound,
                    format!("read /proc/{raw}/cgroup"),
                    error,
                )
            })?;
        let layout = Layout::of_host()?;
        let dirs = layout
            .mounts()
            .iter()
            .filter_map(|mount| {
                let member = memberships.0.iter().find(|m| match layout.mode() {
                    Mode::V1 => m
                        .controllers
                        .iter()
                        .any(|c| mount.controllers.contains(&&**c)),
                    Mode::V2 => m.hierarchy == 0,
                })?;
                let below = Path::new(&member.pathname).strip_prefix(&mount.root).ok()?;
                Some(Dir::new(mount, &below_top(below).ok()?))
            })
            .collect();
        Ok(Cgroup {
            mode: layout.mode(),
            dirs,
        })
    }

    /// Which cgroup version these are.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The directory under the given v1 controller; on v2 the one there is.
    pub fn dir(&self, controller: &str) -> Option<&Path> {
        self.dirs
            .iter()
            .find(|dir| self.mode == Mode::V2 || dir.controllers.contains(&controller))
            .map(|dir| &*dir.path)
    }

    /// Each hierarchy's `cgroup.procs`: a pid written to all of them is in the cgroup.
    pub fn procs_files(&self) -> Vec<PathBuf> {
        self.dirs
            .iter()
            .map(|dir| dir.path.join("cgroup.procs"))
            .collect()
    }

    /// True when it exists in at least one hierarchy.
    pub fn exists(&self) -> bool {
        self.dirs.iter().any(|dir| dir.path.is_dir())
    }

    /// The path that stands for it in messages.
    pub(super) fn name(&self) -> String {
        self.dir("freezer")
            .or(self.dirs.first().map(|dir| &*dir.path))
            .map_or_else(
                || "(no cgroup)".to_owned(),
                |path| path.display().to_string(),
            )
    }
}

impl Dir {
    fn new(mount: &Mount, relative: &Path) -> Dir {
        Dir {
            controllers: mount.controllers.clone(),
            path: mount.point.join(relative),
            mount: mount.point.clone(),
        }
    }
}

/// The path without its leading `/`; refused when empty or not made of plain names.
fn below_top(path: &Path) -> Result<PathBuf> {
    let mut relative = PathBuf::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => relative.push(name),
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!("cgroup path {} contains \"..\"", path.display()),
                ));
            }
        }
    }
    if relative.as_os_str().is_empty() {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "cgroup path {:?} is the top of the hierarchy, where the host's own processes live",
                path.display()
            ),
        ));
    }
    Ok(relative)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_and_the_outside_are_refused() {
        for path in ["", "/", "/./", "..", "/a/../b", "/.."] {
            let error = Cgroup::at(Path::new(path)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{path:?}");
        }
    }

    #[test]
    fn absolute_and_relative_paths_mean_the_same() {
        let absolute = Cgroup::at(Path::new("/default/x")).unwrap();
        assert_eq!(absolute, Cgroup::at(Path::new("default/x")).unwrap());
        assert!(!absolute.exists());
        assert!(!absolute.procs_files().is_empty());
        assert!(
            absolute
                .procs_files()
                .iter()
                .all(|f| f.ends_with("default/x/cgroup.procs"))
        );
    }

    #[test]
    fn youkis_default_path_is_one_name() {
        let cgroup = Cgroup::at(Path::new(":youki:x")).unwrap();
        assert!(cgroup.dir("freezer").unwrap().ends_with(":youki:x"));
    }
}
