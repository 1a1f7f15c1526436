//! Restrictions of restored mounts, such as `ro`.
//!
//! CRIU (4.2 and before) gives an external mount the options of the dump only
//! when no earlier mount of the same filesystem had the same ones: of two
//! read-only binds from one disk the second comes back writable. So they are
//! compared, and put right, before the processes run.

use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::mount::{MountFlags, mount_remount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::external_mounts::restrictions;
use super::{mount_table, namespaces};
use crate::error::{Error, ErrorKind, IoContext, Result};

/// A mount point in the container and what the mount there may not be used for.
pub(super) type Restricted = (PathBuf, Vec<String>);

/// Makes sure that each mount of the process has the restrictions given for it.
pub(super) fn enforce(pid: i32, wanted: &[Restricted]) -> Result<()> {
    let lacking = lacking(pid, wanted)?;
    if lacking.is_empty() {
        return Ok(());
    }
    let namespace = namespaces::open(Path::new(&format!("/proc/{pid}/ns/mnt")))?;
    super::on_own_thread(|| {
        crate::sys::unshare(UnshareFlags::FS).context(|| "unshare the working directory")?;
        rustix::thread::move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&namespace),
            Some(LinkNameSpaceType::Mount),
        )
        .context(|| "enter the mount namespace")?;
        lacking
            .iter()
            .try_for_each(|(point, flags)| remount(point, *flags))
    })?;
    match self::lacking(pid, wanted)?.first() {
        None => Ok(()),
        Some((point, _)) => {
            let text = format!(
                "the mount at {} stays less restricted than it was",
                point.display()
            );
            Err(Error::new(ErrorKind::Internal, text))
        }
    }
}

/// The mounts that lack restrictions, with all flags that they are to have.
fn lacking(pid: i32, wanted: &[Restricted]) -> Result<Vec<(PathBuf, MountFlags)>> {
    let mounts = mount_table::of_process(pid)?;
    let mut found = Vec::new();
    for (point, needed) in wanted {
        let Some(mount) = mounts.iter().rfind(|mount| mount.point == *point) else {
            let text = format!("no mount came back at {}", point.display());
            return Err(Error::new(ErrorKind::Criu, text));
        };
        let has = restrictions(&mount.options);
        if needed.iter().any(|option| !has.contains(option)) {
            let all = mount
                .options
                .iter()
                .chain(needed)
                .map(|option| flag(option));
            found.push((point.clone(), all.fold(MountFlags::BIND, MountFlags::union)));
        }
    }
    Ok(found)
}

fn flag(option: &str) -> MountFlags {
    match option {
        "ro" => MountFlags::RDONLY,
        "nosuid" => MountFlags::NOSUID,
        "nodev" => MountFlags::NODEV,
        "noexec" => MountFlags::NOEXEC,
        "noatime" => MountFlags::NOATIME,
        "nodiratime" => MountFlags::NODIRATIME,
        "relatime" => MountFlags::RELATIME,
        _ => MountFlags::empty(),
    }
}

fn remount(point: &Path, flags: MountFlags) -> Result<()> {
    let what = || format!("restrict the mount at {}", point.display());
    // A mount point as the kernel tells it has no symbolic link in it.
    let path = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat2(
        rustix::fs::CWD,
        point,
        path,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS,
    )
    .context(what)?;
    mount_remount(point, flags, c"").context(what)
}
