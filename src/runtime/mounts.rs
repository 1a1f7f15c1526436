//! Mounting what containerd's snapshotter hands over at `<bundle>/rootfs`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::idmap;
use crate::error::{Error, ErrorKind, IoContext, Result};

/// One mount of a rootfs, as in containerd's `Mount` message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsMountRequest {
    /// Filesystem type: `overlay`, `bind`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Device or directory.
    pub source: String,
    /// Mount options, one each.
    pub options: Vec<String>,
    /// Folder below the rootfs to mount at; empty for the rootfs itself.
    pub target: String,
}

/// Mounts all of `mounts` in order at `rootfs`, which is made if it is missing.
/// On an error nothing stays mounted.
pub fn mount_rootfs(mounts: &[RootfsMountRequest], rootfs: &Path) -> Result<()> {
    std::fs::create_dir_all(rootfs).context(|| format!("make {}", rootfs.display()))?;
    for mount in mounts {
        if let Err(error) = mount_one(mount, rootfs) {
            let _ = unmount_rootfs(rootfs);
            return Err(error);
        }
    }
    Ok(())
}

fn mount_one(mount: &RootfsMountRequest, rootfs: &Path) -> Result<()> {
    let target = match mount.target.trim_start_matches('/') {
        "" => rootfs.to_path_buf(),
        below => rootfs.join(below),
    };
    let mut mount = mount.clone();
    let maps = idmap::take_maps(&mut mount);
    // Unmounted at the end of this function: the overlay has its own hold on it.
    let _view = match &maps {
        Some(maps) if mount.kind == "overlay" => {
            Some(idmap::shift_lower_layers(&mut mount, rootfs, maps)?)
        }
        _ => None,
    };
    let some = |text: &'_ str| (!text.is_empty()).then(|| text.to_owned());
    containerd_shim::mount::mount_rootfs(
        some(&mount.kind).as_deref(),
        some(&mount.source).as_deref(),
        &mount.options,
        &target,
    )
    .map_err(|error| {
        Error::caused_by(
            ErrorKind::Runtime,
            format!("mount the rootfs at {}", target.display()),
            error,
        )
    })?;
    match &maps {
        Some(maps) if mount.kind != "overlay" => idmap::shift_mount(&target, maps),
        _ => Ok(()),
    }
}

/// Unmounts `rootfs` and all that is mounted below it; no error if nothing is.
pub fn unmount_rootfs(rootfs: &Path) -> Result<()> {
    if let Some(view) = idmap::place(rootfs) {
        idmap::remove(&view); // Left by a helper that was killed.
    }
    const MNT_DETACH: i32 = rustix::mount::UnmountFlags::DETACH.bits() as i32;
    let path = rootfs.to_str().ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidInput,
            format!("the bundle's path {} is not UTF-8", rootfs.display()),
        )
    })?;
    containerd_shim::mount::umount_recursive(Some(path), MNT_DETACH)
        .map_err(|error| Error::caused_by(ErrorKind::Runtime, format!("unmount {path}"), error))
}
