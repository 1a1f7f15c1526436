//! A container's life in libcontainer: create, start, adopt (after a restore), delete.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use libcontainer::config::YoukiConfig;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::container::{Container, ContainerStatus};
use libcontainer::hooks::run_hooks;
use libcontainer::syscall::syscall::SyscallType;
use oci_spec::runtime::{Hooks, Spec};
use serde::{Deserialize, Serialize};

use super::STATE_DIR;
use super::cgroup_path::cgroup_path;
use super::network;
use super::program::Program;
use super::{last_words, streams, working_dir};
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
    let spec = target.spec()?;
    working_dir::make(&spec, &target.bundle)?;
    streams::give_to_user(&spec)?;
    let container = ContainerBuilder::new(target.id.clone(), SyscallType::default())
        .with_executor(Program { is_init: true })
        .with_root_path(target.state_root())
        .map_err(|error| runtime_error("use the state folder", error))?
        .with_console_socket(request.console_socket.clone())
        .as_init(&target.bundle)
        .with_systemd(false)
        .with_no_pivot(request.no_pivot)
        .build()
        .map_err(|error| runtime_error("create the container", error))
        .inspect_err(|_| {
            // libcontainer tries once, when its dying processes may still be in it.
            let _ = target.cgroup().and_then(|cgroup| cgroup.remove());
            run_poststop_hooks(target, spec.hooks().as_ref());
        })?;
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

fn has_stopped(container: &mut Container) -> Result<bool> {
    let refreshed = container.refresh_status();
    refreshed.map_err(|error| runtime_error("look at the container", error))?;
    Ok(container.status() == ContainerStatus::Stopped)
}

/// A killed init is gone from its cgroup a little before it is a zombie.
fn await_stop(container: &mut Container) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !has_stopped(container)? {
        if Instant::now() > deadline {
            let what = "the container's init outlives SIGKILL";
            return Err(Error::new(ErrorKind::Timeout, what));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// Runs the hooks that undo what others did (take a network down, say). A
/// create that failed needs them as well: it may have run those others.
fn run_poststop_hooks(target: &Target, hooks: Option<&Hooks>) {
    let Some(hooks) = hooks.and_then(|hooks| hooks.poststop().as_ref()) else {
        return;
    };
    // Its own folder is gone; the value is for the hooks only, and not saved.
    let (stopped, bundle) = (ContainerStatus::Stopped, &target.bundle);
    let ran = Container::new(&target.id, stopped, None, bundle, bundle)
        .map_err(|error| error.to_string())
        .and_then(|container| {
            run_hooks(Some(hooks), Some(&container.state), None, None, None)
                .map_err(|error| error.to_string())
        });
    if let Err(error) = ran {
        log::warn!("poststop hooks of {}: {error}", target.id);
    }
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
///
/// A poststop hook that fails does not keep the container from being deleted,
/// as OCI has it; libcontainer would, so its hooks are run from here.
pub fn delete(target: &Target, force: bool) -> Result<()> {
    let dir = target.state_dir();
    if !dir.exists() {
        return Ok(());
    }
    let what = "delete the container";
    // A container that was hardly begun has no configuration, and no hooks to run.
    let mut hooks = None;
    if let Ok(mut config) = YoukiConfig::load(&dir)
        && config.hooks.is_some()
    {
        hooks = config.hooks.take();
        config
            .save(&dir)
            .map_err(|error| runtime_error(what, error))?;
    }
    let mut container = load(target)?;
    // libcontainer kills once, and tries to remove the cgroups for a moment only,
    // however long what it killed takes to leave them.
    let cgroup = target.cgroup()?;
    if force && !has_stopped(&mut container)? {
        cgroup.kill_all()?;
        await_stop(&mut container)?;
    }
    if has_stopped(&mut container)? {
        cgroup.remove()?;
    }
    container
        .delete(force)
        .map_err(|error| runtime_error(what, error))?;
    run_poststop_hooks(target, hooks.as_ref());
    Ok(())
}

pub(super) fn load(target: &Target) -> Result<Container> {
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

/// Comes before the message of a process that failed on its way to its program.
const PREFACE: &str = "error in executing process : ";

/// libcontainer's errors say little at the top: the whole chain is told.
pub(super) fn runtime_error(what: &str, error: impl std::error::Error + 'static) -> Error {
    let mut chain = what.to_owned();
    let mut last = String::new();
    let mut next: Option<&dyn std::error::Error> = Some(&error);
    while let Some(cause) = next {
        let text = cause.to_string();
        // What the new process itself has to say, without libcontainer's preface.
        let text = text.rsplit(PREFACE).next().unwrap_or_default().to_owned();
        if !last.contains(&text) {
            chain.push_str(": ");
            chain.push_str(&text);
            last = text;
        }
        next = cause.source();
    }
    // What the new process says itself is complete.
    if !chain.contains("exec: ")
        && let Some(words) = last_words::first()
    {
        chain = format!("{chain}: {words}");
    }
    Error::new(ErrorKind::Runtime, chain)
}
