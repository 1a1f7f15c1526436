//! The overlay file system: mounted for real, in a mount namespace of a
//! thread's own, over a tmpfs of its own. Both end with the thread.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use super::Check;
use crate::error::{Error, ErrorKind, IoContext, Result};

pub(super) fn check() -> Check {
    // A thread's end is the only way back out of its mount namespace.
    match std::thread::spawn(try_out).join() {
        Ok(Ok(())) => Check::ok("overlayfs", "mounted one; a removed file became a whiteout"),
        Ok(Err(error)) => Check::fail(
            "overlayfs",
            error.to_string(),
            "run as root, with the kernel's overlay module (`modprobe overlay`)",
        ),
        Err(_) => Check::fail(
            "overlayfs",
            "the check itself failed",
            "report this as a bug",
        ),
    }
}

fn try_out() -> Result<()> {
    unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).context(|| "make a mount namespace")?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).context(|| "make mounts private")?;
    // Only this thread sees it.
    let top = std::env::temp_dir();
    mount("tmpfs", &top, "tmpfs", MountFlags::empty(), c"mode=0700")
        .context(|| format!("mount a tmpfs on {}", top.display()))?;
    let dir = |name: &str| -> Result<_> {
        let path = top.join(name);
        fs::create_dir(&path).context(|| format!("make {}", path.display()))?;
        Ok(path)
    };
    let (lower, upper, work, merged) = (dir("lower")?, dir("upper")?, dir("work")?, dir("merged")?);
    write(&lower.join("file"))?;
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    let options = std::ffi::CString::new(options)
        .map_err(|error| Error::caused_by(ErrorKind::Internal, "overlay options", error))?;
    mount(
        "overlay",
        &merged,
        "overlay",
        MountFlags::empty(),
        &*options,
    )
    .context(|| "mount an overlay")?;
    write(&merged.join("new"))?;
    let removed = merged.join("file");
    fs::remove_file(&removed).context(|| format!("remove {}", removed.display()))?;
    expect_whiteout(&upper.join("file"))
}

fn write(path: &Path) -> Result<()> {
    fs::write(path, "x").context(|| format!("write {}", path.display()))
}

/// In the upper layer a removed file is a character device 0:0.
fn expect_whiteout(path: &Path) -> Result<()> {
    let there = fs::symlink_metadata(path).context(|| format!("look at {}", path.display()))?;
    if there.file_type().is_char_device() && there.rdev() == 0 {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::HostUnfit,
        "a file removed from an overlay left no whiteout in its upper layer",
    ))
}
