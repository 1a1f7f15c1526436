//! Where a container's control groups are to be, and which of them are ours.
//!
//! A restored container's cgroups are made by us before libcontainer knows of
//! the container. The file `<bundle>/world/cgroup` holds their path from just
//! before they are made until they are removed, so that whoever cleans up,
//! also after a kill, removes those and never another container's.

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::container::Target;
use crate::cgroup::Cgroup;
use crate::error::{ErrorKind, IoContext, Result};

/// The spec's `cgroupsPath`; without one, libcontainer takes the id.
pub fn cgroup_path(spec: &Spec, id: &str) -> PathBuf {
    let linux = spec.linux().as_ref();
    linux
        .and_then(|linux| linux.cgroups_path().clone())
        .unwrap_or_else(|| PathBuf::from(id))
}

/// Notes that the cgroups at `path` are about to be made for the container.
pub fn own_cgroup(target: &Target, path: &Path) -> Result<()> {
    let mark = mark(target);
    std::fs::create_dir_all(target.state_root())
        .and_then(|()| std::fs::write(&mark, path.as_os_str().as_bytes()))
        .context(|| format!("write {}", mark.display()))
}

/// Kills what lives in the cgroups that [`own_cgroup`] noted, and removes them.
pub fn disown_cgroup(target: &Target) -> Result<()> {
    let mark = mark(target);
    let path = match std::fs::read(&mark).context(|| format!("read {}", mark.display())) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        path => PathBuf::from(std::ffi::OsString::from_vec(path?)),
    };
    let cgroup = Cgroup::at(&path)?;
    if cgroup.exists() {
        // Thaws it, too; a removal that was cut short may have left no freezer.
        cgroup.kill_all()?;
        cgroup.remove()?;
    }
    std::fs::remove_file(&mark).context(|| format!("remove {}", mark.display()))
}

fn mark(target: &Target) -> PathBuf {
    target.state_root().join("cgroup")
}
