//! A container's life in libcontainer: create, start, adopt (after a restore), delete.

use std::path::{Path, PathBuf};

use libcontainer::config::YoukiConfig;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::container::{Container, ContainerStatus};
use libcontainer::syscall::syscall::SyscallType;
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use super::STATE_DIR;
use super::cgroup_path::cgroup_path;
use super::network;
use crate::cgroup::Cgroup;
use crate::error::{Error, ErrorKind, IoContext, Result};

/// Which container an operation is about.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Target {
    /// The container's id, as containerd knows it.
    pub id: String,
    /// Absolute path of its bundle.
    pub bundle: PathBuf,
}

impl Target {
    /// libcontainer's "root": the folder that holds a folder for the container.
    pub fn state_root(&self) -> PathBuf {
        self.bundle.join(STATE_DIR)
    }

    /// The folder with libcontainer's state of this container.
    pub fn state_dir(&self) -> PathBuf {
        self.state_root().join(&self.id)
    }

    /// Where the rootfs is mounted.
    pub fn rootfs(&self) -> PathBuf {
        self.bundle.join("rootfs")
    }

    /// Its control groups.
    pub fn cgroup(&self) -> Result<Cgroup> {
        Cgroup::at(&cgroup_path(&self.spec()?, &self.id))
    }

    /// The OCI spec that containerd wrote.
    pub fn spec(&self) -> Result<Spec> {
        let path = self.bundle.join("config.json");
        Spec::load(&path).map_err(|error| {
            Error::caused_by(
                ErrorKind::InvalidInput,
                format!("read {}", path.display()),
                error,
            )
        })
    }
}

/// What [`create`] needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Create {
    /// Which container.
    pub target: Target,
    /// Where the terminal's master is to be sent, for a container with a terminal.
    pub console_socket: Option<PathBuf>,
    /// Use `MS_MOVE` instead of `pivot_root`.
    pub no_pivot: bool,
}

/// Makes the container's namespaces, cgroups and init, which then waits for
/// [`start`]. The calling process's stdin, stdout and stderr become init's.
/// Returns init's process id.
pub fn create(request: &Create) -> Result<i32> {
    let target = &request.target;
    std::fs::create_dir_all(target.state_root())
        .context(|| format!("make {}", target.state_root().display()))?;
    let container = builder(&target.id, &target.state_root())?
        .with_console_socket(request.console_socket.clone())
        .as_init(&target.bundle)
        .with_systemd(false)
        .with_no_pivot(request.no_pivot)
        .build()
        .map_err(|error| runtime_error("create the container", error))?;
    init_pid(&container)
        .and_then(|pid| finish(target, pid).map(|()| pid))
        .inspect_err(|_| {
            let _ = delete(target, true);
        })
}

/// What libcontainer leaves to be done.
fn finish(target: &Target, init: i32) -> Result<()> {
    let spec = target.spec()?;
    restrict_devices(target, &spec)?;
    network::bring_up_loopback(&spec, init)
}

/// libcontainer knows no device rules on cgroup v2 (without libbpf); ours do it.
fn restrict_devices(target: &Target, spec: &Spec) -> Result<()> {
    let linux = spec.linux().as_ref();
    let resources = linux.and_then(|linux| linux.resources().clone());
    target
        .cgroup()?
        .restrict_devices(&resources.unwrap_or_default())
}

/// Lets the init of a created container run its program.
pub fn start(target: &Target) -> Result<()> {
    load(target)?
        .start()
        .map_err(|error| runtime_error("start the container", error))
}

/// What [`adopt`] needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Adopt {
    /// Which container.
    pub target: Target,
    /// Process id of the restored init.
    pub pid: i32,
}

/// Tells libcontainer of a container that it did not make: one that CRIU
/// restored, so that exec and delete find it.
pub fn adopt(request: &Adopt) -> Result<()> {
    let target = &request.target;
    let dir = target.state_dir();
    std::fs::create_dir_all(&dir).context(|| format!("make {}", dir.display()))?;
    let spec = target.spec()?;
    let what = "register the restored container";
    let mut container = Container::new(
        &target.id,
        ContainerStatus::Running,
        Some(request.pid),
        &target.bundle,
        &dir,
    )
    .map_err(|error| runtime_error(what, error))?;
    container
        .set_systemd(false)
        .set_annotations(spec.annotations().clone());
    container
        .save()
        .map_err(|error| runtime_error(what, error))?;
    YoukiConfig::from_spec(&spec, &target.id)
        .and_then(|config| config.save(&dir))
        .map_err(|error| runtime_error(what, error))
}

/// Removes the container's cgroups and state, and kills what still runs in it
/// if `force` is given. A container that is not there is no error.
pub fn delete(target: &Target, force: bool) -> Result<()> {
    if !target.state_dir().exists() {
        return Ok(());
    }
    load(target)?
        .delete(force)
        .map_err(|error| runtime_error("delete the container", error))
}

pub(super) fn builder(id: &str, state_root: &Path) -> Result<ContainerBuilder> {
    ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_root_path(state_root)
        .map_err(|error| runtime_error("use the state folder", error))
}

fn load(target: &Target) -> Result<Container> {
    Container::load(target.state_dir())
        .map_err(|error| runtime_error("read the container's state", error))
}

fn init_pid(container: &Container) -> Result<i32> {
    container.pid().map(|pid| pid.as_raw()).ok_or_else(|| {
        Error::new(
            ErrorKind::Runtime,
            "libcontainer made a container without an init process",
        )
    })
}

/// libcontainer's errors say little at the top: the whole chain is told.
pub(super) fn runtime_error(what: &str, error: impl std::error::Error + 'static) -> Error {
    let mut chain = what.to_owned();
    let mut last = String::new();
    let mut next: Option<&dyn std::error::Error> = Some(&error);
    while let Some(cause) = next {
        let text = cause.to_string();
        if !last.contains(&text) {
            chain.push_str(": ");
            chain.push_str(&text);
            last = text;
        }
        next = cause.source();
    }
    Error::new(ErrorKind::Runtime, chain)
}
