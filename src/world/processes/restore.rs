//! Bringing a process tree back under the identity of a new spec.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::Spec;
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::thread::LinkNameSpaceType;
use serde::{Deserialize, Serialize};

use super::dump::{LOG_LEVEL, open_directory, remove_log};
use super::external_mounts::{Sources, refuse_new_binds};
use super::namespaces::{self, Place, Source};
use super::parameters::DumpParameters;
use super::restored_images::RestoredImages;
use super::restrictions::{self, Restricted};
use crate::criu::rpc::{self, CgroupMode, NetworkLock, RequestType};
use crate::criu::{Call, Criu, FIRST_PASSED_FD, Launch, Notification, PassedFd};
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::runtime::network;

/// Name of CRIU's log in the work directory.
const LOG: &str = "restore.log";

/// What becomes of TCP connections that led out of the container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TcpPolicy {
    /// Closed: the processes see the connection end.
    #[default]
    Close,
    /// Brought back; the other end must still wait for exactly this one.
    Established,
}

/// The new container's standard streams.
pub enum RestoredStdio<'a> {
    /// A terminal: its master is in [`Restored::pty_master`].
    Terminal,
    /// Streams 0 to 2; `None` stands for `/dev/null`.
    Streams([Option<BorrowedFd<'a>>; 3]),
}

/// What to bring back, from where, as what.
pub struct RestoreRequest<'a> {
    /// The CRIU to use.
    pub criu: &'a Criu,
    /// The new container's spec.
    pub spec: &'a Spec,
    /// What the dump recorded.
    pub parameters: &'a DumpParameters,
    /// The new container's bundle; relative bind sources start from it.
    pub bundle: &'a Path,
    /// The new container's root filesystem: a mount point.
    pub rootfs: &'a Path,
    /// CRIU's images.
    pub images_dir: &'a Path,
    /// Existing directory for the log. Keep it as long as the container lives:
    /// it holds the empty directory that covers masked ones.
    pub work_dir: &'a Path,
    /// The `cgroup.procs` files of the new container's cgroups, which exist.
    pub cgroup_procs: &'a [PathBuf],
    /// The standard streams.
    pub stdio: RestoredStdio<'a>,
    /// What becomes of connections that led out.
    pub tcp: TcpPolicy,
    /// LSM profile of the processes, `TYPE:NAME`; as dumped when `None`.
    pub lsm_profile: Option<&'a str>,
    /// Memory comes when it is touched: CRIU hands each task's userfaultfd to whoever listens
    /// in the work directory ([`crate::lazy::handover`]), and reads only what it must.
    pub lazy_pages: bool,
    /// The whole restore takes no longer than this.
    pub timeout: Duration,
    /// Readable when the restore is called off.
    pub cancel: Option<BorrowedFd<'a>>,
    /// Called with init's pid when all processes are back, before they run:
    /// limits and hooks belong here. An error undoes the restore.
    pub before_running: &'a mut dyn FnMut(i32) -> Result<()>,
    /// Called when CRIU is about to let them run, and cannot be stopped any more: an error
    /// is told when it has. Called with CRIU's process id: it lives in their cgroups.
    pub before_resuming: &'a mut dyn FnMut(i32) -> Result<()>,
}

/// A tree that runs again.
#[derive(Debug)]
pub struct Restored {
    /// Init, a child of this process.
    pub pid: i32,
    /// The terminal's master, when there is one.
    pub pty_master: Option<OwnedFd>,
}

/// Brings the processes back.
///
/// # Errors
/// `InvalidInput` when the new spec does not fit the world, `Obstacle` and
/// `Criu` as CRIU says. After an error no process of the tree is left.
pub fn restore(request: &mut RestoreRequest<'_>) -> Result<Restored> {
    let empty = empty_directory(request.work_dir)?;
    let prepared = RestoredImages::prepare(request)?;
    let images = open_directory(prepared.directory())?;
    let work = open_directory(request.work_dir)?;
    let mut passed = Passed::default();
    let mut options = options(request, &images, &work);
    let (mounts, restricted) = external_mounts(request, &empty)?;
    options.ext_mnt = mounts;
    pass_streams(request, &mut passed)?;
    let (joined, network) = namespaces_for(request, &mut passed)?;
    options.join_ns = joined;
    options.inherit_fd = passed.keys;
    let launch = Launch {
        fds: passed.fds,
        cgroup_procs: open_for_writing(request.cgroup_procs)?,
        new_cgroup_namespace: own_cgroup_namespace(request),
        network,
        dies_with_us: true,
        on_death: None,
    };
    let cgroups = request.cgroup_procs;
    run(request, launch, options, &restricted).inspect_err(|_| sweep(cgroups))
}

fn run(
    request: &mut RestoreRequest<'_>,
    launch: Launch,
    options: rpc::Options,
    restricted: &[Restricted],
) -> Result<Restored> {
    let deadline = Instant::now() + request.timeout;
    let shared_hostname = shared_hostname(request.spec)?;
    let spec = request.spec;
    let before_running = &mut *request.before_running;
    let before_resuming = &mut *request.before_resuming;
    remove_log(&request.work_dir.join(LOG))?;
    let mut worker = request.criu.start(launch)?;
    let criu = worker.pid().as_raw_pid();
    let mut pty_master = None;
    let mut on_notify = |notification: Notification| -> Result<()> {
        match (notification.stage.as_str(), notification.pid) {
            ("orphan-pts-master", _) => pty_master = notification.fd,
            ("post-restore", Some(pid)) => {
                restrictions::enforce(pid, restricted)?;
                set_hostname(pid, spec, shared_hostname.as_deref())?;
                before_running(pid)?;
            }
            ("pre-resume", _) => before_resuming(criu)?,
            _ => {}
        }
        Ok(())
    };
    let answer = worker.call(Call {
        request: rpc::Request {
            kind: RequestType::Restore.into(),
            opts: Some(options),
            ..rpc::Request::default()
        },
        log: Some(request.work_dir.join(LOG)),
        deadline: Some(deadline),
        cancel: request.cancel,
        on_notify: &mut on_notify,
    })?;
    let pid = answer.restore.map_or(0, |restored| restored.pid);
    if pid <= 0 {
        return Err(Error::new(ErrorKind::Criu, "CRIU restored no process"));
    }
    Ok(Restored { pid, pty_master })
}

fn options(request: &RestoreRequest<'_>, images: &OwnedFd, work: &OwnedFd) -> rpc::Options {
    let recorded = request.parameters;
    rpc::Options {
        images_dir_fd: images.as_raw_fd(),
        work_dir_fd: Some(work.as_raw_fd()),
        log_file: Some(LOG.to_owned()),
        log_level: Some(LOG_LEVEL),
        root: Some(request.rootfs.to_string_lossy().into_owned()),
        rst_sibling: Some(true),
        notify_scripts: Some(true),
        manage_cgroups: Some(true),
        manage_cgroups_mode: Some(CgroupMode::Ignore.into()),
        orphan_pts_master: Some(true),
        evasive_devices: Some(true),
        ext_unix_sk: Some(recorded.external_unix),
        file_locks: Some(recorded.file_locks),
        tcp_established: Some(true),
        network_lock: Some(NetworkLock::Skip.into()),
        lsm_profile: request.lsm_profile.map(str::to_owned),
        lazy_pages: Some(request.lazy_pages),
        ..rpc::Options::default()
    }
}

/// Descriptors for CRIU, and the keys under which it looks for them.
#[derive(Default)]
struct Passed {
    fds: Vec<PassedFd>,
    keys: Vec<rpc::InheritFd>,
}

impl Passed {
    /// Passes a descriptor under each of the keys: CRIU closes it after the first use.
    fn add(&mut self, fd: BorrowedFd<'_>, keys: &[&str]) -> Result<()> {
        for key in keys {
            let number = FIRST_PASSED_FD + i32::try_from(self.fds.len()).unwrap_or(i32::MAX / 2);
            let fd = fd
                .try_clone_to_owned()
                .context(|| "duplicate a descriptor")?;
            self.fds.push(PassedFd { fd, number });
            self.keys.push(rpc::InheritFd {
                key: (*key).to_owned(),
                fd: number,
            });
        }
        Ok(())
    }

    fn has(&self, key: &str) -> bool {
        self.keys.iter().any(|known| known.key == key)
    }
}

fn pass_streams(request: &RestoreRequest<'_>, passed: &mut Passed) -> Result<()> {
    let streams = match (&request.stdio, request.parameters.terminal) {
        (RestoredStdio::Terminal, true) => return Ok(()),
        (RestoredStdio::Streams(streams), false) => streams,
        (_, recorded) => {
            let (was, now) = if recorded { ("a", "no") } else { ("no", "a") };
            let text = format!(
                "the world's processes had {was} terminal, the new container has {now}: \
                 process.terminal must be as it was"
            );
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
    };
    for file in &request.parameters.stdio {
        if passed.has(&file.key) {
            continue; // Streams 1 and 2 were one file.
        }
        let stream = streams.get(usize::from(file.fd)).copied().flatten();
        let null = null()?;
        let fd = stream.unwrap_or(null.as_fd());
        // CRIU looks for a declared file by its name less the first letter
        // before it tries to open it anew; only the former takes a pipe.
        match file.key.strip_prefix('f') {
            Some(short) if file.is_declared() => passed.add(fd, &[short, &file.key])?,
            _ => passed.add(fd, &[&file.key])?,
        }
    }
    Ok(())
}

fn null() -> Result<OwnedFd> {
    let file = File::options().read(true).write(true).open("/dev/null");
    Ok(file.context(|| "open /dev/null")?.into())
}

/// Namespaces that CRIU joins, and the network namespace that it is to run in.
fn namespaces_for(
    request: &RestoreRequest<'_>,
    passed: &mut Passed,
) -> Result<(Vec<rpc::JoinNamespace>, Option<OwnedFd>)> {
    let mut joined = Vec::new();
    let mut network = None;
    for namespace in &request.parameters.namespaces {
        match namespaces::source(namespace, request.spec)? {
            Source::Images => {}
            Source::Passed(key, path) => passed.add(namespaces::open(&path)?.as_fd(), &[key])?,
            Source::Entered(path) => network = Some(namespaces::open(&path)?.into()),
            Source::Made => network = Some(network::make(request.spec)?),
            Source::Joined(path) => joined.push(rpc::JoinNamespace {
                kind: namespace.kind.clone(),
                path: path.to_string_lossy().into_owned(),
                extra: None,
            }),
        }
    }
    Ok((joined, network))
}

/// CRIU's map of external mounts, and their restrictions.
fn external_mounts(
    request: &RestoreRequest<'_>,
    empty: &Path,
) -> Result<(Vec<rpc::ExternalMount>, Vec<Restricted>)> {
    let recorded = &request.parameters.external_mounts;
    refuse_new_binds(request.spec, recorded)?;
    let parents = request
        .cgroup_procs
        .iter()
        .filter_map(|procs| procs.parent());
    let cgroups: Vec<PathBuf> = parents.map(Path::to_owned).collect();
    let sources = Sources {
        spec: request.spec,
        bundle: request.bundle,
        empty,
        cgroups: &cgroups,
    };
    let map = |mount| -> Result<rpc::ExternalMount> {
        let source = sources.of(mount)?;
        Ok(rpc::ExternalMount {
            key: mount.point.to_string_lossy().into_owned(),
            value: source.to_string_lossy().into_owned(),
        })
    };
    let map = recorded.iter().map(map).collect::<Result<_>>()?;
    let restricted = recorded
        .iter()
        .map(|mount| (mount.point.clone(), sources.restrictions(mount)));
    Ok((map, restricted.collect()))
}

fn own_cgroup_namespace(request: &RestoreRequest<'_>) -> bool {
    namespaces::place(&request.parameters.namespaces, "cgroup") == Place::Own
}

fn open_for_writing(paths: &[PathBuf]) -> Result<Vec<OwnedFd>> {
    let open = |path: &PathBuf| {
        let file = File::options().write(true).open(path);
        file.map(OwnedFd::from)
            .context(|| format!("open {}", path.display()))
    };
    paths.iter().map(open).collect()
}

/// What lies over masked directories.
fn empty_directory(work_dir: &Path) -> Result<PathBuf> {
    let path = work_dir.join("empty");
    match std::fs::create_dir(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).context(|| format!("make {}", path.display()))
        }
        _ => Ok(path),
    }
}

/// The hostname of a UTS namespace that the container shares.
fn shared_hostname(spec: &Spec) -> Result<Option<String>> {
    let (Place::Shared, Some(path)) = namespaces::in_spec(spec, "uts") else {
        return Ok(None);
    };
    let read = || {
        rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned()
    };
    within_uts(namespaces::open(&path)?.as_fd(), || Ok(read())).map(Some)
}

/// CRIU gives the UTS namespace the dumped hostname, also a shared one: sets
/// the new spec's, or what the shared one had.
fn set_hostname(pid: i32, spec: &Spec, shared: Option<&str>) -> Result<()> {
    let own = match namespaces::in_spec(spec, "uts").0 {
        Place::Own => spec.hostname().as_deref(),
        _ => None,
    };
    let Some(name) = shared.or(own) else {
        return Ok(());
    };
    let uts = namespaces::open(Path::new(&format!("/proc/{pid}/ns/uts")))?;
    within_uts(uts.as_fd(), || {
        rustix::system::sethostname(name.as_bytes()).context(|| format!("set hostname {name}"))
    })
}

/// Runs `action` in another UTS namespace, on a thread of its own.
fn within_uts<T: Send>(
    uts: BorrowedFd<'_>,
    action: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    super::on_own_thread(|| {
        let kind = LinkNameSpaceType::HostNameAndNISDomainName;
        rustix::thread::move_into_link_name_space(uts, Some(kind))
            .context(|| "enter the UTS namespace")?;
        action()
    })
}

/// Kills and reaps what a failed restore left in the new container's cgroups.
fn sweep(cgroup_procs: &[PathBuf]) {
    for _ in 0..50 {
        let mut left = false;
        for procs in cgroup_procs {
            let text = std::fs::read_to_string(procs).unwrap_or_default();
            for pid in text
                .lines()
                .filter_map(|line| Pid::from_raw(line.parse().ok()?))
            {
                left = true;
                let _ = rustix::process::kill_process(pid, Signal::KILL);
                let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
            }
        }
        if !left {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
