//! A rootfs whose owners are shifted for a user namespace: what a snapshotter
//! means by the mount options `uidmap=` and `gidmap=`, which are no options of
//! the kernel's.
//!
//! An overlay's lower layers are seen through an idmapped bind mount, at
//! `<bundle>/world/idmap` for the moment of mounting (the overlay then holds on
//! to it by itself). It is read-only: whoever removes a bundle that was left
//! behind must not reach the layers through it. See mount_setattr(2).

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libcontainer::syscall::linux::MountAttr;
use libcontainer::syscall::syscall::create_syscall;
use oci_spec::runtime::{LinuxIdMapping, Spec};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

use super::container::Target;
use super::mounts::RootfsMountRequest;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::sys::{ChildSetup, set_up_child};

/// First argument of the shim's binary when it is to hold a user namespace
/// until its stdin ends.
pub const HOLDER_ARGUMENT: &str = "hold-namespace";

const MOUNT_ATTR_RDONLY: u64 = 0x1;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// An idmapped view of directories, unmounted with this value.
pub struct View {
    at: PathBuf,
}

impl View {
    /// A read-only view of a directory in which what is root's belongs to the
    /// root of the container's user namespace; `None` when it has none.
    pub fn for_container(directory: &Path, target: &Target, spec: &Spec) -> Result<Option<View>> {
        let linux = spec.linux().as_ref();
        let maps = linux.and_then(|linux| {
            let uids = linux
                .uid_mappings()
                .as_deref()
                .filter(|maps| !maps.is_empty())?;
            let gids = linux
                .gid_mappings()
                .as_deref()
                .filter(|maps| !maps.is_empty())?;
            Some((map_text(uids), map_text(gids)))
        });
        let (Some(maps), Some(at)) = (maps, place(&target.rootfs())) else {
            return Ok(None);
        };
        std::fs::create_dir_all(&at).context(|| format!("make {}", at.display()))?;
        let view = View { at };
        bind(directory, &view.at, &maps, MOUNT_ATTR_RDONLY)?;
        Ok(Some(view))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.at
    }
}

fn map_text(maps: &[LinuxIdMapping]) -> String {
    let text =
        |map: &LinuxIdMapping| format!("{}:{}:{}", map.container_id(), map.host_id(), map.size());
    maps.iter().map(text).collect::<Vec<_>>().join(",")
}

impl Drop for View {
    fn drop(&mut self) {
        remove(&self.at);
    }
}

/// The place of a rootfs's view.
pub fn place(rootfs: &Path) -> Option<PathBuf> {
    Some(rootfs.parent()?.join(super::STATE_DIR).join("idmap"))
}

/// Unmounts what is at `at`, and removes it.
pub fn remove(at: &Path) {
    if at.exists() {
        // Not mounted, or gone already: nothing to do.
        let _ = unmount(at, UnmountFlags::DETACH);
        let _ = std::fs::remove_dir(at);
    }
}

/// The options `uidmap=` and `gidmap=`, taken out of the mount's.
pub fn take_maps(mount: &mut RootfsMountRequest) -> Option<(String, String)> {
    let mut take = |name: &str| {
        let at = mount
            .options
            .iter()
            .position(|option| option.starts_with(name))?;
        Some(mount.options.remove(at)[name.len()..].to_owned())
    };
    let (uids, gids) = (take("uidmap="), take("gidmap="));
    uids.zip(gids)
}

/// Replaces the lower layers of an overlay by an idmapped view of them.
pub fn shift_lower_layers(
    overlay: &mut RootfsMountRequest,
    rootfs: &Path,
    maps: &(String, String),
) -> Result<View> {
    let bad = |why: &str| Error::new(ErrorKind::InvalidInput, format!("idmapped rootfs: {why}"));
    let option = overlay
        .options
        .iter_mut()
        .find(|option| option.starts_with("lowerdir="));
    let option = option.ok_or_else(|| bad("the overlay has no lower layers"))?;
    let layers: Vec<PathBuf> = option["lowerdir=".len()..]
        .split(':')
        .map(PathBuf::from)
        .collect();
    let common =
        common_folder(&layers).ok_or_else(|| bad("the layers have no folder in common"))?;
    let at = place(rootfs).ok_or_else(|| bad("the rootfs has no bundle"))?;
    std::fs::create_dir_all(&at).context(|| format!("make {}", at.display()))?;
    let view = View { at };
    bind(&common, &view.at, maps, MOUNT_ATTR_RDONLY)?;
    let shifted: Vec<String> = layers
        .iter()
        .filter_map(|layer| layer.strip_prefix(&common).ok())
        .map(|below| view.at.join(below).display().to_string())
        .map(|path| path.trim_end_matches('/').to_owned())
        .collect();
    *option = format!("lowerdir={}", shifted.join(":"));
    Ok(view)
}

/// Shifts the owners of a mount that is there.
pub fn shift_mount(target: &Path, maps: &(String, String)) -> Result<()> {
    bind(target, target, maps, 0)
}

fn common_folder(layers: &[PathBuf]) -> Option<PathBuf> {
    let (first, rest) = layers.split_first()?;
    let common = first
        .ancestors()
        .find(|folder| rest.iter().all(|layer| layer.starts_with(folder)));
    common
        .filter(|folder| folder.parent().is_some())
        .map(Path::to_owned)
}

fn bind(source: &Path, target: &Path, maps: &(String, String), attributes: u64) -> Result<()> {
    let namespace = user_namespace(maps)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, source, flags)
        .context(|| format!("clone the mount {}", source.display()))?;
    let attributes = MountAttr {
        attr_set: MOUNT_ATTR_IDMAP | attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: namespace.as_raw_fd() as u64,
    };
    let (empty_path, recursive) = (0x1000, 0x8000);
    create_syscall()
        .mount_setattr(
            tree.as_fd(),
            Path::new(""),
            empty_path | recursive,
            &attributes,
            std::mem::size_of::<MountAttr>(),
        )
        .map_err(|error| {
            Error::caused_by(
                ErrorKind::HostUnfit,
                format!("shift the owners of the files in {}", source.display()),
                error,
            )
        })?;
    move_mount(
        &tree,
        "",
        CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .context(|| format!("mount the shifted {}", source.display()))
}

/// A user namespace with these maps (`container:host:size`, separated by commas).
fn user_namespace((uids, gids): &(String, String)) -> Result<OwnedFd> {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg(HOLDER_ARGUMENT)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let setup = ChildSetup {
        dies_with_parent: true,
        new_user_namespace: true,
        ..Default::default()
    };
    set_up_child(&mut command, setup);
    let mut holder = command.spawn().context(|| "make a user namespace")?;
    let proc = PathBuf::from(format!("/proc/{}", holder.id()));
    let write = |file: &str, map: &str| {
        let lines = map.replace(':', " ").replace(',', "\n");
        std::fs::write(proc.join(file), lines).context(|| format!("write the {file} {map}"))
    };
    let namespace = write("uid_map", uids)
        .and_then(|()| write("gid_map", gids))
        .and_then(|()| File::open(proc.join("ns/user")).context(|| "open the user namespace"));
    // The end of its stdin is its end.
    drop(holder.stdin.take());
    holder
        .wait()
        .context(|| "wait for the namespace's holder")?;
    namespace.map(OwnedFd::from)
}

/// The whole life of the process that holds a user namespace.
pub fn hold_namespace() {
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_taken_out_of_the_options() {
        let mut mount = RootfsMountRequest {
            kind: "overlay".into(),
            source: "overlay".into(),
            options: ["index=off", "uidmap=0:9:5", "gidmap=0:8:5", "lowerdir=/a"]
                .map(String::from)
                .into(),
            target: String::new(),
        };
        assert_eq!(
            take_maps(&mut mount),
            Some(("0:9:5".into(), "0:8:5".into()))
        );
        assert_eq!(mount.options, ["index=off", "lowerdir=/a"]);
        assert_eq!(take_maps(&mut mount), None);
    }

    #[test]
    fn maps_of_a_spec_are_written_like_a_snapshotter_s() {
        let maps: Vec<LinuxIdMapping> = serde_json::from_str(
            r#"[{"containerID":0,"hostID":9,"size":5},{"containerID":7,"hostID":70,"size":1}]"#,
        )
        .unwrap();
        assert_eq!(map_text(&maps), "0:9:5,7:70:1");
    }

    #[test]
    fn layers_have_a_folder_in_common() {
        let common =
            |layers: &[&str]| common_folder(&layers.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(common(&["/s/1/fs"]), Some("/s/1/fs".into()));
        assert_eq!(common(&["/s/1/fs", "/s/2/fs"]), Some("/s".into()));
        assert_eq!(common(&["/a/fs", "/b/fs"]), None);
    }
}
