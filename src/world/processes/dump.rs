//! Capture of a process tree.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags};

use super::external_mounts::OwnNamespaces;
use super::namespaces::{self, Place};
use super::orphan::Mark;
use super::parameters::DumpParameters;
use super::rescue::Rescue;
use super::tree::{self, Process};
use super::{external_mounts, mount_table, obstacles, stdio, tcp, vfork};
use crate::criu::rpc::{self, CgroupMode, NetworkLock, RequestType};
use crate::criu::{Call, Criu, Launch, OnDeath};
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::runtime::network::Snapshot;

/// Name of CRIU's log in the work directory.
const LOG: &str = "dump.log";
/// How long a container is watched for a moment without a vfork.
const SETTLE_TIME: Duration = Duration::from_secs(2);
/// Errors only: the driver reads nothing else, and more costs time.
pub(super) const LOG_LEVEL: i32 = 1;

/// What to capture, from where, to where.
pub struct DumpRequest<'a> {
    /// The CRIU to use.
    pub criu: &'a Criu,
    /// The container's init, as this process sees it.
    pub init: i32,
    /// The spec that the container was made from.
    pub spec: &'a Spec,
    /// The container's root filesystem.
    pub rootfs: &'a Path,
    /// Existing directory for CRIU's images; only regular files go in.
    pub images_dir: &'a Path,
    /// Existing directory for the log and statistics.
    pub work_dir: &'a Path,
    /// The container's freezer cgroup, frozen by [`settle`]. It is frozen when
    /// `dump` returns `Ok`; after an error it may be thawed.
    pub freezer_cgroup: Option<&'a Path>,
    /// What a network namespace of the container's would look like, made just
    /// now; without it, CRIU captures also one in which there is nothing.
    pub new_network: Option<&'a Snapshot>,
    /// Whether the processes live on. When they do not, CRIU kills them.
    pub leave_running: bool,
    /// Capture file locks. Without it, a lock is an obstacle.
    pub file_locks: bool,
    /// Allow unix sockets connected to the outside; they come back closed.
    pub external_unix: bool,
    /// Largest unlinked but open file that is captured, in bytes.
    pub ghost_limit: u32,
    /// The whole dump takes no longer than this.
    pub timeout: Duration,
    /// Readable when the dump is called off.
    pub cancel: Option<BorrowedFd<'a>>,
}

/// What was captured.
#[derive(Debug)]
pub struct ProcessesDumped {
    /// What a restore has to replay.
    pub parameters: DumpParameters,
    /// The processes in the images, init first.
    pub processes: Vec<Process>,
    /// Processes in the container's cgroup that are not in init's tree, such
    /// as exec'd ones: they are not in the images and live on.
    pub omitted: Vec<Process>,
    /// How long CRIU took.
    pub took: Duration,
}

/// Writes the images of a frozen container.
///
/// # Errors
/// `Obstacle` names what in the container cannot be captured; `Criu`, `Timeout`
/// and `Aborted` as [`Worker::call`](crate::criu::Worker::call). The processes
/// live on after every error.
pub fn dump(request: &DumpRequest<'_>) -> Result<ProcessesDumped> {
    let (processes, omitted) = processes(request.init, request.freezer_cgroup)?;
    refuse_vfork(&processes, &omitted)?;
    obstacles::refuse(&processes, &omitted, request.freezer_cgroup)?;
    let parameters = parameters(request, &processes)?;
    let images = open_directory(request.images_dir)?;
    let work = open_directory(request.work_dir)?;
    let options = options(request, &parameters, &images, &work);
    let began = Instant::now();
    let rescue = match request.freezer_cgroup {
        Some(cgroup) => Rescue::prepare(cgroup)?,
        None => None,
    };
    remove_log(&request.work_dir.join(LOG))?;
    let mut worker = request.criu.start(Launch {
        on_death: rescue
            .map(|mut rescue| -> OnDeath { Box::new(move |death| rescue.on_death(death)) }),
        network: network_as_new(request.init, &parameters)?,
        ..Launch::default()
    })?;
    worker.put_first();
    let _mark = Mark::set(request.work_dir, worker.pid())?;
    worker.call(Call {
        request: rpc::Request {
            kind: RequestType::Dump.into(),
            opts: Some(options),
            ..rpc::Request::default()
        },
        log: Some(request.work_dir.join(LOG)),
        deadline: Some(began + request.timeout),
        cancel: request.cancel,
        // At each stage CRIU stands until we answer: when we are gone it undoes.
        on_notify: &mut |_| Ok(()),
    })?;
    Ok(ProcessesDumped {
        parameters,
        processes,
        omitted,
        took: began.elapsed(),
    })
}

/// Freezes the container at a moment at which it can be dumped.
///
/// `freeze` and `thaw` act on the freezer cgroup. The container is frozen when
/// this returns `Ok`, and thawed or frozen after an error.
///
/// # Errors
/// `Obstacle` when a process stands in vfork(2) each time, for 2 seconds.
pub fn settle(
    init: i32,
    freezer_cgroup: &Path,
    mut freeze: impl FnMut() -> Result<()>,
    mut thaw: impl FnMut() -> Result<()>,
) -> Result<()> {
    let end = Instant::now() + SETTLE_TIME;
    let mut pause = Duration::from_micros(500);
    loop {
        freeze()?;
        let (processes, others) = processes(init, Some(freezer_cgroup))?;
        match refuse_vfork(&processes, &others) {
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => thaw()?,
            Ok(()) => return Ok(()),
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// The processes of init's tree, and the others in the cgroup.
fn processes(init: i32, cgroup: Option<&Path>) -> Result<(Vec<Process>, Vec<Process>)> {
    let processes = tree::below(init)?;
    let others = match cgroup {
        Some(cgroup) => tree::others(cgroup, &processes)?,
        None => Vec::new(),
    };
    Ok((processes, others))
}

fn refuse_vfork(processes: &[Process], others: &[Process]) -> Result<()> {
    let Some(process) = vfork::find(processes).or_else(|| vfork::find(others)) else {
        return Ok(());
    };
    let (pid, comm) = (process.pid, &process.comm);
    let text = format!("process {pid} ({comm}) waits in vfork for its child: try again");
    Err(Error::new(ErrorKind::Obstacle, text))
}

fn parameters(request: &DumpRequest<'_>, processes: &[Process]) -> Result<DumpParameters> {
    let (init, spec) = (request.init, request.spec);
    let mounts = mount_table::of_process(init)?;
    let mut namespaces = namespaces::of_process(init, spec)?;
    if let Some(new) = request.new_network
        && namespaces::network_is_as_new(&namespaces, processes, new)
    {
        namespaces::set_place(&mut namespaces, "net", Place::AsNew);
    }
    let is_own = |kind| namespaces::place(&namespaces, kind) == Place::Own;
    let own = OwnNamespaces {
        cgroup: is_own("cgroup"),
        user: is_own("user"),
    };
    let terminal = spec
        .process()
        .as_ref()
        .and_then(|process| process.terminal());
    Ok(DumpParameters {
        terminal: terminal.unwrap_or(false),
        stdio: stdio::from_outside(init, processes, &mounts)?,
        external_mounts: external_mounts::find(init, spec, &mounts, own)?,
        tcp: tcp::facts(processes)?,
        file_locks: request.file_locks,
        external_unix: request.external_unix,
        hostname: is_own("uts").then(|| spec.hostname().clone()).flatten(),
        namespaces,
    })
}

fn options(
    request: &DumpRequest<'_>,
    parameters: &DumpParameters,
    images: &OwnedFd,
    work: &OwnedFd,
) -> rpc::Options {
    // Packets matter only where the other end of a connection runs on.
    let network_lock = match parameters.tcp.outside {
        0 => NetworkLock::Skip,
        _ => NetworkLock::Nftables,
    };
    rpc::Options {
        images_dir_fd: images.as_raw_fd(),
        work_dir_fd: Some(work.as_raw_fd()),
        log_file: Some(LOG.to_owned()),
        log_level: Some(LOG_LEVEL),
        pid: Some(request.init),
        root: Some(request.rootfs.to_string_lossy().into_owned()),
        leave_running: Some(request.leave_running),
        freeze_cgroup: request
            .freezer_cgroup
            .map(|path| path.to_string_lossy().into_owned()),
        manage_cgroups: Some(true),
        manage_cgroups_mode: Some(CgroupMode::Ignore.into()),
        orphan_pts_master: Some(true),
        notify_scripts: Some(true),
        ext_unix_sk: Some(request.external_unix),
        file_locks: Some(request.file_locks),
        ghost_limit: Some(request.ghost_limit),
        tcp_established: Some(true),
        tcp_skip_in_flight: Some(true),
        network_lock: Some(network_lock.into()),
        ext_mnt: parameters.external_mounts.iter().map(same_key).collect(),
        external: external_resources(parameters),
        timeout: Some(seconds(request.timeout)),
        ..rpc::Options::default()
    }
}

fn same_key(mount: &external_mounts::ExternalMount) -> rpc::ExternalMount {
    let point = mount.point.to_string_lossy().into_owned();
    rpc::ExternalMount {
        key: point.clone(),
        value: point,
    }
}

/// A network namespace that needs no capture. CRIU runs in it: also of one
/// that is declared external it dumps the connection table, for which the
/// kernel walks the table of the whole host.
fn network_as_new(init: i32, parameters: &DumpParameters) -> Result<Option<OwnedFd>> {
    match namespaces::place(&parameters.namespaces, "net") {
        Place::AsNew => namespaces::open(Path::new(&format!("/proc/{init}/ns/net")))
            .map(|namespace| Some(namespace.into())),
        _ => Ok(None),
    }
}

/// Namespaces that are not in the images and standard streams that CRIU leaves alone.
fn external_resources(parameters: &DumpParameters) -> Vec<String> {
    let namespaces = parameters.namespaces.iter().filter_map(|namespace| {
        let key = namespaces::external_key(&namespace.kind)?;
        let (kind, inode) = (&namespace.kind, namespace.inode);
        (namespace.place == Place::Shared).then(|| format!("{kind}[{inode}]:{key}"))
    });
    let files = parameters.stdio.iter().filter(|file| file.is_declared());
    namespaces
        .chain(files.map(|file| file.key.clone()))
        .collect()
}

/// Whole seconds, at least one, for CRIU's own time limit.
fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX).max(1)
}

/// An earlier call's log: a CRIU that dies early must not be blamed for what is in it.
pub(super) fn remove_log(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Opens a directory whose descriptor CRIU looks up in our process.
pub(super) fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).context(|| format!("open {}", path.display()))
}
