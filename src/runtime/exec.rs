//! A further process in a running container.
//!
//! libcontainer's tenant builder is not used: it joins all of init's namespaces
//! but the user namespace, so that a process in a container with one would be
//! root of the host; it leaves out the seccomp filter; and it leaves a socket
//! behind for each process. What the builder calls in the end is called here,
//! with a spec that has them.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcgroups::common::CgroupConfig;
use libcontainer::notify_socket::{NotifyListener, NotifySocket};
use libcontainer::process::args::{ContainerArgs, ContainerType};
use libcontainer::process::container_main_process::container_main_process;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::tty::setup_console_socket;
use oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, Process, Spec,
};
use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};

use super::cgroup_path::cgroup_path;
use super::container::{Target, load, runtime_error};
use super::program::Program;
use super::streams;
use crate::error::{Error, ErrorKind, IoContext, Result};

/// What [`exec`] needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exec {
    /// Which container.
    pub target: Target,
    /// Its init.
    pub init: i32,
    /// File with the OCI `process` object.
    pub process: PathBuf,
    /// Where the terminal's master is to be sent, for a process with a terminal.
    pub console_socket: Option<PathBuf>,
}

/// Runs a process in the container's namespaces and cgroups, with the calling
/// process's stdin, stdout and stderr. Returns its process id; its program runs
/// when this returns.
pub fn exec(request: &Exec) -> Result<i32> {
    let target = &request.target;
    let what = "run a process in the container";
    let spec = spec_of(request)?;
    check_working_dir(&spec, request.init)?;
    streams::give_to_user(&spec)?;
    set_oom_score(&spec)?;
    // Nothing in the container may look into a process that is on its way in.
    let hidden = rustix::process::DumpableBehavior::NotDumpable;
    rustix::process::set_dumpable_behavior(hidden).context(|| "hide the helper")?;
    let sockets = tempfile::Builder::new()
        .prefix("exec")
        .tempdir_in(target.state_dir())
        .context(|| "make a folder for an exec's sockets")?;
    let console = match &request.console_socket {
        Some(socket) => Some(
            setup_console_socket(sockets.path(), socket, "tty")
                .map_err(|error| runtime_error(what, error))?,
        ),
        None => None,
    };
    let start = sockets.path().join("start");
    let (mut failed, report) = pipe_with(PipeFlags::CLOEXEC)
        .map(|(read, write)| (std::fs::File::from(read), write))
        .context(|| "make a pipe")?;
    let args = ContainerArgs {
        container_type: ContainerType::TenantContainer {
            exec_notify_fd: report.as_raw_fd(),
        },
        syscall: SyscallType::default(),
        cgroup_config: CgroupConfig {
            cgroup_path: cgroup_of(request, &spec)?,
            systemd_cgroup: false,
            container_name: target.id.clone(),
        },
        spec: Rc::new(spec),
        rootfs: target.rootfs(),
        console_socket: console.as_ref().map(AsRawFd::as_raw_fd),
        notify_listener: NotifyListener::new(&start).map_err(|error| runtime_error(what, error))?,
        preserve_fds: 0,
        container: Some(load(target)?),
        user_ns_config: None,
        detached: true,
        executor: Box::new(Program { is_init: false }),
        no_pivot: false,
        stdin: None,
        stdout: None,
        stderr: None,
        as_sibling: false,
        pid_file: None,
    };
    let pid = container_main_process(&args).map_err(|error| runtime_error(what, error))?;
    NotifySocket::new(start)
        .notify_container_start()
        .map_err(|error| runtime_error(what, error))?;
    // Now the process has the only writing end, until it executes its program.
    drop(report);
    let mut reason = String::new();
    failed
        .read_to_string(&mut reason)
        .context(|| "hear from the new process")?;
    match reason.is_empty() {
        true => Ok(pid.as_raw()),
        false => Err(Error::new(ErrorKind::Runtime, format!("{what}: {reason}"))),
    }
}

/// The container's spec with the new process in it, and with the namespaces
/// that init lives in to be joined instead of new ones.
fn spec_of(request: &Exec) -> Result<Spec> {
    let mut spec = request.target.spec()?;
    let text = std::fs::read(&request.process)
        .context(|| format!("read {}", request.process.display()))?;
    let mut process: Process = serde_json::from_slice(&text)
        .map_err(|error| Error::caused_by(ErrorKind::InvalidInput, "decode the process", error))?;
    // libcontainer takes an explicit "false" for "true" when it sets up seccomp.
    if process.no_new_privileges() == Some(false) {
        process.set_no_new_privileges(None);
    }
    let linux = spec.linux().clone().unwrap_or_default();
    let mut joined = LinuxBuilder::default().namespaces(namespaces(&linux, request.init)?);
    if let Some(seccomp) = linux.seccomp() {
        joined = joined.seccomp(seccomp.clone());
    }
    if let Some(personality) = linux.personality() {
        joined = joined.personality(personality.clone());
    }
    if let (Some(uids), Some(gids)) = (linux.uid_mappings(), linux.gid_mappings()) {
        joined = joined.uid_mappings(uids.clone()).gid_mappings(gids.clone());
    }
    if let Some(path) = linux.cgroups_path() {
        joined = joined.cgroups_path(path.clone());
    }
    let joined = joined.build().map_err(|error| {
        Error::caused_by(ErrorKind::Internal, "make the spec of an exec", error)
    })?;
    spec.set_process(Some(process)).set_linux(Some(joined));
    Ok(spec)
}

/// Those that the spec names and that are not this process's own.
fn namespaces(linux: &Linux, init: i32) -> Result<Vec<LinuxNamespace>> {
    let named = linux.namespaces().as_deref().unwrap_or_default();
    let mut joined = Vec::with_capacity(named.len());
    for namespace in named {
        let file = namespace_file(namespace.typ());
        let theirs = PathBuf::from(format!("/proc/{init}/ns/{file}"));
        let identity =
            |path: &Path| std::fs::read_link(path).context(|| format!("read {}", path.display()));
        if identity(&theirs)? == identity(&Path::new("/proc/self/ns").join(file))? {
            continue;
        }
        let namespace = LinuxNamespaceBuilder::default()
            .typ(namespace.typ())
            .path(theirs)
            .build();
        joined.push(namespace.map_err(|error| {
            Error::caused_by(ErrorKind::Internal, "make the spec of an exec", error)
        })?);
    }
    Ok(joined)
}

fn namespace_file(namespace: LinuxNamespaceType) -> &'static str {
    match namespace {
        LinuxNamespaceType::Mount => "mnt",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "net",
        LinuxNamespaceType::Time => "time",
    }
}

/// The container's cgroup. On v2 a container can have handed its controllers to
/// cgroups below (systemd does); then nobody can join it, and init's is taken.
fn cgroup_of(request: &Exec, spec: &Spec) -> Result<PathBuf> {
    let path = cgroup_path(spec, &request.target.id);
    let cgroup = request.target.cgroup()?;
    let handed_down = cgroup
        .dir("")
        .map(|dir| dir.join("cgroup.subtree_control"))
        .and_then(|file| std::fs::read_to_string(file).ok())
        .is_some_and(|controllers| !controllers.trim().is_empty());
    if !handed_down {
        return Ok(path);
    }
    let memberships = std::fs::read_to_string(format!("/proc/{}/cgroup", request.init))
        .context(|| "read init's cgroup")?;
    let unified = memberships
        .lines()
        .find_map(|line| line.strip_prefix("0::"));
    Ok(unified.map_or(path, PathBuf::from))
}

/// libcontainer says nothing of use when it cannot enter it.
fn check_working_dir(spec: &Spec, init: i32) -> Result<()> {
    let Some(cwd) = spec.process().as_ref().map(Process::cwd) else {
        return Ok(());
    };
    let root = format!("/proc/{init}/root");
    let root = std::fs::File::open(&root).context(|| format!("open {root}"))?;
    let entered = pathrs::Root::from_fd(std::os::fd::OwnedFd::from(root)).resolve(cwd);
    entered.map(drop).map_err(|error| {
        let what = format!("chdir to cwd ({cwd:?}) set in config.json failed");
        match error.kind() {
            pathrs::error::ErrorKind::OsError(Some(errno)) => {
                let error = std::io::Error::from_raw_os_error(errno);
                Error::caused_by(ErrorKind::Runtime, what, error)
            }
            _ => Error::caused_by(ErrorKind::Runtime, what, error),
        }
    })
}

fn set_oom_score(spec: &Spec) -> Result<()> {
    let score = spec
        .process()
        .as_ref()
        .and_then(|process| process.oom_score_adj());
    match score {
        Some(score) => std::fs::write("/proc/self/oom_score_adj", score.to_string())
            .context(|| "set the out-of-memory score"),
        None => Ok(()),
    }
}
