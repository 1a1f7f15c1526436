//! A working directory that the image lacks is made, as runc does.
//!
//! libcontainer only enters it. It is made before the container is, where it
//! will be seen: in the rootfs, or in the source of the bind mount that covers
//! it. Below any other mount it cannot be made from here.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use pathrs::Root;

use crate::error::{Error, ErrorKind, Result};

/// Makes the working directory of `spec` if need be. No link leads out of the
/// rootfs, or of the mount.
pub fn make(spec: &Spec, bundle: &Path) -> Result<()> {
    let (Some(root), Some(process)) = (spec.root(), spec.process()) else {
        return Ok(());
    };
    let cwd = process.cwd();
    let Some((top, below)) = place(spec, &bundle.join(root.path()), cwd) else {
        return Ok(());
    };
    let failed = |error| {
        let what = format!("make the working directory {}", cwd.display());
        Error::caused_by(ErrorKind::Runtime, what, error)
    };
    let root = Root::open(&top).map_err(failed)?;
    if root.resolve(&below).is_ok() {
        return Ok(());
    }
    let mode = Permissions::from_mode(0o755);
    root.mkdir_all(&below, &mode).map(drop).map_err(failed)
}

/// The folder that is a world of its own, and the path in it.
fn place(spec: &Spec, rootfs: &Path, cwd: &Path) -> Option<(PathBuf, PathBuf)> {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let cover = mounts
        .iter()
        .filter(|mount| cwd.starts_with(mount.destination()))
        .max_by_key(|mount| mount.destination().components().count());
    let Some(mount) = cover else {
        return Some((rootfs.to_owned(), cwd.to_owned()));
    };
    let is_bind = mount
        .options()
        .iter()
        .flatten()
        .any(|option| option == "bind" || option == "rbind");
    let source = mount
        .source()
        .clone()
        .filter(|source| is_bind && source.is_dir())?;
    let below = cwd.strip_prefix(mount.destination()).ok()?;
    Some((source, below.to_owned()))
}
