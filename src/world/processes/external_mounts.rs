//! Mounts that are not CRIU's business: bind mounts from the host, masked
//! paths, cgroup v1 hierarchies, device nodes.
//!
//! When dumping, each is named by its mount point. When restoring, each gets
//! the source that the **new** spec gives it; a source that nobody listed
//! there is refused.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{Mount as SpecMount, Spec};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use super::mount_table::{self, Mount};
use crate::error::{Error, ErrorKind, IoContext, Result};

/// A mount that came from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalMount {
    /// Where it is mounted in the container; CRIU's images know it by this.
    pub point: PathBuf,
    /// Which of `ro`, `nosuid`, `nodev`, `noexec` it had.
    #[serde(default)]
    pub restrictions: Vec<String>,
    /// What it is.
    #[serde(flatten)]
    pub purpose: MountPurpose,
}

/// What an external mount is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "purpose")]
pub enum MountPurpose {
    /// A bind mount of the spec, or a mount below a recursive one.
    Bind {
        /// The destination as the spec gives it.
        destination: PathBuf,
        /// The mount's path below the destination; empty for the bind itself.
        #[serde(default)]
        below: PathBuf,
    },
    /// A masked file: `/dev/null` lies over it.
    MaskedFile,
    /// A masked directory: an empty directory lies over it.
    MaskedDirectory,
    /// A cgroup v1 hierarchy.
    #[serde(rename_all = "camelCase")]
    CgroupV1 {
        /// Its controllers, or its name as `name=NAME`.
        controllers: Vec<String>,
    },
    /// A device node of the host, at the same path.
    Device,
}

/// Options that take something away from the processes.
const RESTRICTIONS: [&str; 4] = ["ro", "nosuid", "nodev", "noexec"];

/// Devices that every container has, by the OCI runtime specification.
const DEFAULT_DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Namespaces of the container's own that change how its mounts are treated.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnNamespaces {
    /// A cgroup namespace: hierarchies are mounted anew in it.
    pub cgroup: bool,
    /// A user namespace.
    pub user: bool,
}

/// Finds the external mounts of the container whose init is `pid`.
pub(super) fn find(
    pid: i32,
    spec: &Spec,
    mounts: &[Mount],
    own: OwnNamespaces,
) -> Result<Vec<ExternalMount>> {
    let root = open_root(Path::new(&format!("/proc/{pid}/root")))?;
    let binds = bind_points(&root, spec, mounts)?;
    let masked = masked_paths(spec);
    let listed: Vec<&Path> = spec_mounts(spec)
        .map(|mount| mount.destination().as_path())
        .collect();
    let mut found = Vec::new();
    for mount in mounts.iter().filter(|mount| mount.point != Path::new("/")) {
        let purpose = if masked.contains(&mount.point.as_path()) {
            let purpose = masked_purpose(&root, mount);
            // In a user namespace the empty directory's mount would keep options
            // of the host's that the one dumped did not have.
            let plain = own.user && purpose == MountPurpose::MaskedDirectory;
            (!plain).then_some(purpose)
        } else if let Some(destination) = binds.get(&mount.point) {
            Some(bind(destination, Path::new("")))
        } else if mount.fstype == "cgroup" {
            (!own.cgroup).then(|| cgroup_purpose(mount))
        } else if is_foreign_device(&root, mount, mounts) {
            Some(MountPurpose::Device)
        } else if listed.contains(&mount.point.as_path()) {
            None
        } else {
            let points = binds.keys().map(PathBuf::as_path);
            let parent = mount_table::containing(points, &mount.point);
            parent.map(|(point, below)| bind(&binds[point], below))
        };
        found.extend(purpose.map(|purpose| ExternalMount {
            point: mount.point.clone(),
            restrictions: restrictions(&mount.options),
            purpose,
        }));
    }
    // CRIU looks a mount up by its point, so that two at one point are one.
    found.sort_by(|first, second| first.point.cmp(&second.point));
    found.dedup_by(|second, first| second.point == first.point);
    Ok(found)
}

/// Those of a mount's options that take something away.
pub(super) fn restrictions(options: &[String]) -> Vec<String> {
    let known = options
        .iter()
        .filter(|option| RESTRICTIONS.contains(&option.as_str()));
    known.cloned().collect()
}

fn bind(destination: &Path, below: &Path) -> MountPurpose {
    MountPurpose::Bind {
        destination: destination.to_owned(),
        below: below.to_owned(),
    }
}

fn masked_purpose(root: &OwnedFd, mount: &Mount) -> MountPurpose {
    match open_below(root, &mount.point, OFlags::DIRECTORY) {
        Ok(_) => MountPurpose::MaskedDirectory,
        Err(_) => MountPurpose::MaskedFile,
    }
}

/// Whether a device node lies there that no filesystem of the container has.
/// (Its terminal, which lies over /dev/console, is in its own devpts.)
fn is_foreign_device(root: &OwnedFd, mount: &Mount, mounts: &[Mount]) -> bool {
    let own = |other: &Mount| other.device == mount.device && other.root == Path::new("/");
    if mount.root == Path::new("/") || mounts.iter().any(own) {
        return false;
    }
    let there = open_below(root, &mount.point, OFlags::NOFOLLOW);
    let mode = there.and_then(rustix::fs::fstat).map(|stat| stat.st_mode);
    mode.is_ok_and(|mode| {
        let kind = rustix::fs::FileType::from_raw_mode(mode);
        kind.is_char_device() || kind.is_block_device()
    })
}

fn cgroup_purpose(mount: &Mount) -> MountPurpose {
    let controllers = mount.super_options.split(',').map(str::to_owned);
    MountPurpose::CgroupV1 {
        controllers: controllers.filter(|word| is_controller(word)).collect(),
    }
}

fn is_controller(option: &str) -> bool {
    let others = [
        "rw",
        "ro",
        "xattr",
        "clone_children",
        "noprefix",
        "cpuset_v2_mode",
    ];
    !others.contains(&option) && !option.starts_with("release_agent=")
}

fn spec_mounts(spec: &Spec) -> impl Iterator<Item = &SpecMount> {
    spec.mounts().iter().flatten()
}

fn masked_paths(spec: &Spec) -> Vec<&Path> {
    let linux = spec.linux().as_ref();
    let paths = linux.and_then(|linux| linux.masked_paths().as_ref());
    paths.into_iter().flatten().map(Path::new).collect()
}

/// Whether a mount of a spec is a bind mount.
pub(super) fn is_bind(mount: &SpecMount) -> bool {
    let options = mount.options().iter().flatten();
    mount.typ().as_deref() == Some("bind")
        || options
            .into_iter()
            .any(|option| option == "bind" || option == "rbind")
}

/// Where the spec's bind mounts really are (their destinations may lead
/// through symbolic links), with their destinations.
fn bind_points(root: &OwnedFd, spec: &Spec, mounts: &[Mount]) -> Result<HashMap<PathBuf, PathBuf>> {
    let mut points = HashMap::new();
    for bind in spec_mounts(spec).filter(|mount| is_bind(mount)) {
        let destination = bind.destination();
        // Gone or replaced by the container itself: then it is not there to dump.
        let Ok(there) = open_below(root, destination, OFlags::empty()) else {
            continue;
        };
        let id = mount_id(&there)?;
        if let Some(mount) = mounts.iter().find(|mount| mount.id == id) {
            points.insert(mount.point.clone(), destination.clone());
        }
    }
    points.remove(Path::new("/"));
    Ok(points)
}

fn open_root(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).context(|| format!("open {}", path.display()))
}

/// Opens a path as the container sees it; no symbolic link leads out.
fn open_below(root: &OwnedFd, path: &Path, extra: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | extra;
    rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
}

fn mount_id(fd: &OwnedFd) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
    let text = std::fs::read_to_string(&path).context(|| format!("read {path}"))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    Ok(id.and_then(|id| id.trim().parse().ok()).unwrap_or(0))
}

/// What the sources of external mounts are taken from.
pub(super) struct Sources<'a> {
    /// The new container's spec.
    pub spec: &'a Spec,
    /// Directory that relative sources in the spec start from.
    pub bundle: &'a Path,
    /// An empty directory.
    pub empty: &'a Path,
    /// Directories of the new container's cgroups.
    pub cgroups: &'a [PathBuf],
}

impl Sources<'_> {
    /// The path on the host that the mount is to show.
    pub(super) fn of(&self, mount: &ExternalMount) -> Result<PathBuf> {
        match &mount.purpose {
            MountPurpose::Bind { destination, below } => self.of_bind(destination, below),
            MountPurpose::MaskedFile => Ok("/dev/null".into()),
            MountPurpose::MaskedDirectory => Ok(self.empty.to_owned()),
            MountPurpose::CgroupV1 { controllers } => self.of_cgroup(controllers),
            MountPurpose::Device => self.of_device(&mount.point),
        }
    }

    /// What the mount may not be used for: as it was, and as the new spec says.
    pub(super) fn restrictions(&self, mount: &ExternalMount) -> Vec<String> {
        let mut all = mount.restrictions.clone();
        if let MountPurpose::Bind { destination, .. } = &mount.purpose {
            let listed = self
                .bind_to(destination)
                .and_then(|bind| bind.options().as_ref());
            all.extend(restrictions(listed.map_or(&[], Vec::as_slice)));
        }
        all.sort();
        all.dedup();
        all
    }

    fn bind_to(&self, destination: &Path) -> Option<&SpecMount> {
        let wanted = normal(destination);
        let mut binds = spec_mounts(self.spec).filter(|mount| is_bind(mount));
        binds.find(|mount| normal(mount.destination()) == wanted)
    }

    fn of_bind(&self, destination: &Path, below: &Path) -> Result<PathBuf> {
        let source = self
            .bind_to(destination)
            .and_then(|mount| mount.source().as_ref())
            .ok_or_else(|| unlisted("a bind mount", destination))?;
        if below
            .components()
            .any(|part| !matches!(part, Component::Normal(_)))
        {
            let text = format!(
                "the mount below {} has a strange path",
                destination.display()
            );
            return Err(Error::new(ErrorKind::CorruptWorld, text));
        }
        let mut path = self.bundle.join(source);
        if !below.as_os_str().is_empty() {
            path.push(below);
        }
        std::fs::symlink_metadata(&path)
            .context(|| format!("source of the mount at {}", destination.display()))?;
        Ok(path)
    }

    fn of_cgroup(&self, controllers: &[String]) -> Result<PathBuf> {
        let ours = mount_table::of_process(std::process::id().cast_signed())?;
        let hierarchy = ours.iter().find(|mount| {
            let options: Vec<&str> = mount.super_options.split(',').collect();
            let all = controllers
                .iter()
                .all(|name| options.contains(&name.as_str()));
            mount.fstype == "cgroup" && !controllers.is_empty() && all
        });
        let names = controllers.join(",");
        let hierarchy = hierarchy.ok_or_else(|| {
            let text = format!("the world's container saw cgroup v1 {names}; this host has none");
            Error::new(ErrorKind::ForeignWorld, text)
        })?;
        let mut cgroups = self.cgroups.iter();
        let cgroup = cgroups.find(|cgroup| {
            // `cpu` may be a link to `cpu,cpuacct`.
            let real = cgroup.canonicalize().unwrap_or_default();
            real.starts_with(&hierarchy.point) || cgroup.starts_with(&hierarchy.point)
        });
        cgroup.cloned().ok_or_else(|| {
            let text = format!("the new container has no cgroup for {names}");
            Error::new(ErrorKind::InvalidInput, text)
        })
    }

    fn of_device(&self, point: &Path) -> Result<PathBuf> {
        let by_default = DEFAULT_DEVICES.map(|name| Path::new("/dev").join(name));
        let linux = self.spec.linux().as_ref();
        let devices = linux.and_then(|linux| linux.devices().as_ref());
        let mut listed = devices.into_iter().flatten().map(|device| device.path());
        if by_default.iter().any(|known| known == point) || listed.any(|listed| listed == point) {
            return Ok(point.to_owned());
        }
        Err(unlisted("a device", point))
    }
}

/// Bind mounts of the new spec that the world does not have.
pub(super) fn refuse_new_binds(spec: &Spec, recorded: &[ExternalMount]) -> Result<()> {
    let known = |destination: &Path| {
        recorded.iter().any(|mount| match &mount.purpose {
            MountPurpose::Bind {
                destination: old, ..
            } => normal(old) == normal(destination),
            _ => false,
        })
    };
    let mut binds = spec_mounts(spec).filter(|mount| is_bind(mount));
    match binds.find(|mount| !known(mount.destination())) {
        None => Ok(()),
        Some(mount) => Err(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "the new container has a mount at {} that the world's did not have: \
                 a restored process cannot be given one; leave it out",
                mount.destination().display()
            ),
        )),
    }
}

fn unlisted(what: &str, point: &Path) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        format!(
            "the world's processes have {what} at {}; the new container's spec has none there: add it",
            point.display()
        ),
    )
}

/// A path without `.`, `..` and doubled slashes, from the root.
fn normal(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(mounts: serde_json::Value) -> Spec {
        let text = serde_json::json!({ "ociVersion": "1.2.0", "mounts": mounts,
            "linux": { "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}] }});
        serde_json::from_value(text).unwrap()
    }

    fn sources<'a>(spec: &'a Spec) -> Sources<'a> {
        Sources {
            spec,
            bundle: Path::new("/"),
            empty: Path::new("/empty"),
            cgroups: &[],
        }
    }

    fn external(point: &str, purpose: MountPurpose) -> ExternalMount {
        ExternalMount {
            point: point.into(),
            restrictions: Vec::new(),
            purpose,
        }
    }

    #[test]
    fn a_bind_gets_the_new_source() {
        let spec = spec(serde_json::json!([
            {"destination": "/data/", "type": "bind", "source": "/usr", "options": ["rbind"]}]));
        let mount = external("/data/lib", bind(Path::new("/data"), Path::new("lib")));
        assert_eq!(sources(&spec).of(&mount).unwrap(), Path::new("/usr/lib"));
        let other = external("/other", bind(Path::new("/other"), Path::new("")));
        let error = sources(&spec).of(&other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn a_path_that_climbs_out_is_refused() {
        let spec = spec(serde_json::json!([
            {"destination": "/data", "type": "bind", "source": "/usr"}]));
        let mount = external("/data", bind(Path::new("/data"), Path::new("../etc")));
        let error = sources(&spec).of(&mount).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CorruptWorld);
    }

    #[test]
    fn only_listed_devices_are_given() {
        let spec = spec(serde_json::json!([]));
        let device = |point| sources(&spec).of(&external(point, MountPurpose::Device));
        assert_eq!(device("/dev/null").unwrap(), Path::new("/dev/null"));
        assert!(device("/dev/fuse").is_ok());
        assert!(device("/dev/sda").is_err());
    }

    #[test]
    fn a_bind_that_the_world_lacks_is_refused() {
        let spec = spec(serde_json::json!([
            {"destination": "/new", "type": "bind", "source": "/usr"}]));
        assert!(refuse_new_binds(&spec, &[]).is_err());
        let known = [external("/new", bind(Path::new("/new"), Path::new("")))];
        assert!(refuse_new_binds(&spec, &known).is_ok());
    }
}
