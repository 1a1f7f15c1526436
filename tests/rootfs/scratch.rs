//! Directories for one test, on a real disk, gone when it ends.

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::ffi::CString;
use std::path::{Path, PathBuf};
use worldshim::world::rootfs::{DevicePolicy, DeviceRule, Layering, Policy, Privileged, Upper};

/// A temporary directory on a filesystem that keeps all attributes.
pub fn scratch() -> tempfile::TempDir {
    assert!(
        rustix::process::geteuid().is_root(),
        "these tests make devices, owners and mounts: run them as root"
    );
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("make a temporary directory")
}

/// A policy that allows everything.
pub fn all_allowed() -> Policy {
    let any = DeviceRule {
        allow: true,
        block: None,
        major: None,
        minor: None,
    };
    Policy {
        devices: DevicePolicy(vec![any]),
        privileged: Privileged::Keep,
    }
}

/// The directory as the upper of an ordinary overlay.
pub fn upper(path: &Path) -> Upper {
    Upper::open(path, Layering::Overlay { userxattr: false }).expect("open the layer")
}

/// An overlay mount, undone when dropped.
pub struct Overlay {
    pub merged: PathBuf,
}

impl Overlay {
    /// Mounts `base/lower`, `base/upper` and `base/work` at `base/merged`.
    pub fn mount(base: &Path, more_options: &str) -> Overlay {
        for name in ["lower", "upper", "work", "merged"] {
            std::fs::create_dir_all(base.join(name)).unwrap();
        }
        let at = |name: &str| base.join(name).display().to_string();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}{more_options}",
            at("lower"),
            at("upper"),
            at("work")
        );
        let merged = base.join("merged");
        let options = CString::new(options).unwrap();
        mount(
            "overlay",
            &merged,
            "overlay",
            MountFlags::empty(),
            options.as_c_str(),
        )
        .expect("mount an overlay");
        Overlay { merged }
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = unmount(&self.merged, UnmountFlags::DETACH);
    }
}
