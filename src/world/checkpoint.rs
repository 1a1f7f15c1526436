//! Checkpoint: freeze, capture all parts side by side, thaw, commit.
//!
//! Everything that can fail without the container standing still is done
//! before the freeze; everything that needs no frozen container is done after
//! the thaw. A container that was frozen already stays so. An error leaves it
//! as it was found and the directory empty; the manifest is written last.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::config::Config;
use super::directory::WorldDirWriter;
use super::env::EnvPart;
use super::follow::ImageHasher;
use super::host::HostFacts;
use super::identity::Identity;
use super::manifest::{
    BaseLayers, ContainerIdentity, FORMAT, KIND, Manifest, OmittedProcess, Part, PartFile,
    PartKind, Times,
};
use super::policy::Policy;
use super::processes::{self, DumpRequest, ProcessesDumped};
use super::rootfs::{self, RootfsMount, Upper};
use super::secrets::Redactor;
use super::{env, fork, spec};
use crate::cgroup::{Cgroup, Frozen};
use crate::criu::Criu;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::runtime::network::Snapshot;
use crate::runtime::{RootfsMountRequest, Target};

/// Name of the rootfs part's file.
pub const ROOTFS_FILE: &str = "rootfs.tar";
/// How long the container's processes may take to stand still.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest unlinked but open file that is captured, in bytes.
const GHOST_LIMIT: u32 = 1 << 30;

/// What a client wishes of a checkpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Wishes {
    /// End the container once its world is safe.
    pub exit: bool,
    /// Allow connections to unix sockets outside of the container.
    pub external_unix_sockets: bool,
    /// Allow file locks; `None` leaves it to annotations and configuration.
    pub file_locks: Option<bool>,
    /// Where CRIU's logs go.
    pub work_path: Option<PathBuf>,
}

/// What [`checkpoint`] needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// The container.
    pub target: Target,
    /// Its init's process id.
    pub pid: i32,
    /// Folder for the world.
    pub world: PathBuf,
    /// The rootfs as containerd gave it.
    pub rootfs: Vec<RootfsMountRequest>,
    /// containerd's namespace.
    pub namespace: String,
    /// containerd's gRPC socket.
    pub containerd: PathBuf,
    /// The runtime's name.
    pub runtime: String,
    /// What the client wishes.
    pub wishes: Wishes,
    /// Exec ids and their process ids.
    pub execs: Vec<(String, i32)>,
}

impl Request {
    /// Where CRIU's logs go.
    pub fn work_dir(&self) -> PathBuf {
        match &self.wishes.work_path {
            Some(path) => path.clone(),
            None => default_work_dir(&self.target),
        }
    }
}

fn default_work_dir(target: &Target) -> PathBuf {
    target.state_root().join("checkpoint")
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// Nanoseconds during which the container stood still because of us.
    pub frozen_ns: u64,
    /// Nanoseconds in all.
    pub total_ns: u64,
    /// The container was ended, as wished.
    pub ended: bool,
}

/// Everything that is known before the freeze.
struct Plan<'a> {
    request: &'a Request,
    config: Config,
    policy: Policy,
    spec: Spec,
    criu: Criu,
    upper: Option<Upper>,
    /// The layer below it that belongs to the container's own files: see [`super::fork`].
    committed: Option<Upper>,
    base: Option<BaseLayers>,
    cgroup: Cgroup,
    work_dir: PathBuf,
}

/// What was captured while the container stood still.
struct Captured {
    dumped: ProcessesDumped,
    rootfs: Option<(PartFile, Duration)>,
    env: EnvPart,
}

/// Writes the container as a world. `identify` asks containerd who the
/// container is; it runs beside the capture and does not lengthen the freeze.
pub fn checkpoint(
    request: &Request,
    identify: impl FnOnce() -> Result<Identity> + Send,
) -> Result<Outcome> {
    let begun = Instant::now();
    let plan = Plan::new(request)?;
    let writer = WorldDirWriter::create(&request.world)?;
    let mut redactor = Redactor::new(&plan.config.secrets)?;
    let hasher = ImageHasher::start(writer.dir())?;
    let (captured, frozen_ns, (host, identity)) = std::thread::scope(|scope| {
        let surroundings = scope.spawn(|| plan.surroundings(identify));
        let (captured, frozen_ns) = plan.capture_frozen(&writer)?;
        Ok::<_, Error>((captured, frozen_ns, joined(surroundings.join())?))
    })?;
    let images = hasher.finish()?;
    let mut manifest = plan.manifest(&writer, captured, images, host, identity, &mut redactor)?;
    let exit = plan.policy.exit || request.wishes.exit;
    manifest.times.frozen_ns = frozen_ns;
    manifest.times.total_ns = nanos(begun.elapsed());
    // The container is about to go: its world must be on the disk first.
    writer.commit(&manifest, exit)?;
    if exit {
        plan.end_container()?;
    }
    Ok(Outcome {
        frozen_ns,
        total_ns: nanos(begun.elapsed()),
        ended: exit,
    })
}

impl<'a> Plan<'a> {
    fn new(request: &'a Request) -> Result<Self> {
        let config = Config::load()?;
        let spec = request.target.spec()?;
        let annotations = spec.annotations().clone().unwrap_or_default();
        let policy = Policy::new(&annotations, &config)?;
        let mount = RootfsMount::parse(&request.rootfs)?;
        let stands_on_files = fork::stands_on_files(&spec);
        let work_dir = request.work_dir();
        std::fs::create_dir_all(&work_dir).context(|| format!("make {}", work_dir.display()))?;
        Ok(Plan {
            criu: Criu::find(Some(&config.criu.path))?,
            upper: mount.upper()?,
            committed: match stands_on_files {
                true => Some(mount.topmost_lower()?),
                false => None,
            },
            base: base_of(&mount, stands_on_files),
            cgroup: request.target.cgroup()?,
            request,
            config,
            policy,
            spec,
            work_dir,
        })
    }

    /// Freezes the container at a moment at which it can be dumped.
    fn freeze(&self) -> Result<Standing> {
        let freezer = self.cgroup.freezer()?;
        let mut standing = None;
        let was_frozen = freezer.state()? == crate::cgroup::FreezerState::Frozen;
        let settled = processes::settle(
            self.request.pid,
            freezer.dir(),
            || {
                let frozen = freezer.freeze(FREEZE_TIMEOUT)?;
                standing.get_or_insert(frozen);
                Ok(())
            },
            || freezer.thaw().map(|_| ()),
        );
        let standing = standing.map(|frozen| Standing { frozen, was_frozen });
        match (settled, standing) {
            (Ok(()), Some(standing)) => Ok(standing),
            (Ok(()), None) => Err(Error::new(ErrorKind::Internal, "nothing was frozen")),
            (Err(error), Some(mut standing)) => {
                standing.back_to_how_it_was();
                Err(error)
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Captures the parts of the container while it stands still, and how many
    /// nanoseconds it did. Thawed, or as it was found, whatever comes of it.
    fn capture_frozen(&self, writer: &WorldDirWriter) -> Result<(Captured, u64)> {
        self.criu.know_kernel()?;
        let new_network = self.new_network();
        let mut frozen = self.freeze()?;
        let asked = frozen.asked();
        match self.capture(writer, new_network.as_ref()) {
            Ok(captured) => {
                let frozen = frozen.release()?.duration_since(asked);
                Ok((captured, nanos(frozen)))
            }
            Err(error) => {
                frozen.back_to_how_it_was();
                Err(error)
            }
        }
    }

    /// What belongs to a world and is the same whether the container runs or not.
    fn surroundings(
        &self,
        identify: impl FnOnce() -> Result<Identity>,
    ) -> Result<(HostFacts, Identity)> {
        let version = self.criu.require_version()?.to_string();
        Ok((HostFacts::gather(Some(&version))?, identify()?))
    }

    /// For the dump to compare with. Without it, CRIU does it all.
    fn new_network(&self) -> Option<Snapshot> {
        Snapshot::of_new(&self.spec)
            .inspect_err(|error| tracing::warn!("{error}: the network is left to CRIU"))
            .ok()
    }

    /// All parts, side by side.
    fn capture(&self, writer: &WorldDirWriter, new_network: Option<&Snapshot>) -> Result<Captured> {
        std::thread::scope(|scope| {
            let rootfs = scope.spawn(|| self.rootfs(writer));
            let env = EnvPart::gather(self.request.pid, &self.spec);
            let dumped = self.processes(new_network);
            let rootfs = joined(rootfs.join());
            Ok(Captured {
                dumped: dumped?,
                rootfs: rootfs?,
                env: env?,
            })
        })
    }

    fn rootfs(&self, writer: &WorldDirWriter) -> Result<Option<(PartFile, Duration)>> {
        let Some(upper) = &self.upper else {
            return Ok(None);
        };
        let begun = Instant::now();
        let mut file = writer.file(ROOTFS_FILE)?;
        let layers = std::iter::once(upper).chain(&self.committed).collect();
        rootfs::capture_layers(layers, &mut file)?;
        Ok(Some((file.finish(), begun.elapsed())))
    }

    fn processes(&self, new_network: Option<&Snapshot>) -> Result<ProcessesDumped> {
        let wishes = &self.request.wishes;
        let freezer = self.cgroup.freezer()?;
        processes::dump(&DumpRequest {
            criu: &self.criu,
            init: self.request.pid,
            spec: &self.spec,
            rootfs: &self.request.target.rootfs(),
            images_dir: &self.request.world,
            work_dir: &self.work_dir,
            freezer_cgroup: Some(freezer.dir()),
            new_network,
            // Ended by us, and only when the world is safe.
            leave_running: true,
            file_locks: wishes.file_locks.unwrap_or(false) || self.policy.file_locks,
            external_unix: wishes.external_unix_sockets || self.policy.external_unix_sockets,
            ghost_limit: GHOST_LIMIT,
            timeout: Duration::from_secs(self.config.checkpoint.timeout_seconds),
            cancel: None,
        })
    }

    fn manifest(
        &self,
        writer: &WorldDirWriter,
        captured: Captured,
        images: Vec<PartFile>,
        host: HostFacts,
        identity: Identity,
        redactor: &mut Redactor,
    ) -> Result<Manifest> {
        let mut env = captured.env;
        env.redact(redactor);
        let env = writer.write(env::FILE_NAME, &env.to_bytes()?)?;
        let config = self.request.target.bundle.join("config.json");
        let config = std::fs::read(&config).context(|| format!("read {}", config.display()))?;
        let spec = writer.write(spec::FILE_NAME, &spec::part(&config, redactor)?)?;
        let mut times = Times::default();
        let took = |times: &mut Times, kind: PartKind, took: Duration| {
            times.parts_ns.insert(kind.name().to_owned(), nanos(took));
        };
        took(&mut times, PartKind::Processes, captured.dumped.took);
        let mut parts = vec![
            Part::new(PartKind::Processes, images),
            Part::new(PartKind::Env, vec![env]),
            Part::new(PartKind::Spec, vec![spec]),
        ];
        if let Some((file, duration)) = captured.rootfs {
            took(&mut times, PartKind::Rootfs, duration);
            parts.push(Part::new(PartKind::Rootfs, vec![file]));
        }
        let Identity {
            mut labels,
            image,
            snapshotter,
            chain_id,
            committed,
        } = identity;
        if committed.is_some() != self.committed.is_some() {
            // Files would be missing, or an image's taken for the container's.
            return Err(Error::new(
                ErrorKind::WrongState,
                format!(
                    "the annotation {}{} of container {} does not go with the snapshot that it \
                     stands on: make the container with `world restore` or `world fork`",
                    super::policy::PREFIX,
                    fork::ROOTFS,
                    self.request.target.id
                ),
            ));
        }
        redactor.map("container.labels", &mut labels);
        let omitted = self.omitted(&captured.dumped);
        Ok(Manifest {
            base: self.base.clone().map(|base| BaseLayers {
                chain_id,
                snapshotter: snapshotter.unwrap_or(base.snapshotter),
                ..base
            }),
            checksum: Digest::default(),
            container: ContainerIdentity {
                id: self.request.target.id.clone(),
                labels,
                namespace: self.request.namespace.clone(),
                runtime: self.request.runtime.clone(),
            },
            created: OffsetDateTime::now_utc(),
            dump: captured.dumped.parameters,
            format: FORMAT,
            host,
            image,
            kind: KIND.to_owned(),
            omitted,
            parts,
            redacted: redactor.found(),
            times,
        })
    }

    fn omitted(&self, dumped: &ProcessesDumped) -> Vec<OmittedProcess> {
        let exec_id = |pid: i32| {
            let exec = self.request.execs.iter().find(|(_, known)| *known == pid);
            exec.map(|(id, _)| id.clone())
        };
        let omitted = dumped.omitted.iter().map(|process| OmittedProcess {
            command: process.comm.clone(),
            exec_id: exec_id(process.host_pid),
            pid: process.host_pid,
        });
        omitted.collect()
    }

    fn end_container(&self) -> Result<()> {
        // SIGKILL first: a process that is thawed after it runs no more code.
        self.cgroup.signal_all(rustix::process::Signal::KILL)?;
        self.cgroup.freezer()?.thaw()?;
        self.cgroup.kill_all()
    }
}

/// A container that stands still because we, or somebody before us, froze it.
struct Standing {
    frozen: Frozen,
    was_frozen: bool,
}

impl Standing {
    fn asked(&self) -> Instant {
        self.frozen.asked()
    }

    /// Lets it go on, unless somebody else had frozen it. Returns when nothing
    /// of ours held it any more.
    fn release(self) -> Result<Instant> {
        if self.was_frozen {
            self.frozen.leave_frozen();
            return Ok(Instant::now());
        }
        self.frozen.thaw()
    }

    /// After a failure, with CRIU in a state unknown.
    fn back_to_how_it_was(&mut self) {
        let freezer = self.frozen.freezer();
        let put_back = match self.was_frozen {
            true => freezer.freeze(FREEZE_TIMEOUT).map(Frozen::leave_frozen),
            false => freezer.thaw().map(|_| ()),
        };
        if let Err(error) = put_back {
            tracing::warn!("after a failed checkpoint: {error}");
        }
    }
}

fn base_of(mount: &RootfsMount, stands_on_files: bool) -> Option<BaseLayers> {
    match mount {
        RootfsMount::Overlay { lower, .. } => Some(BaseLayers {
            chain_id: None,
            lowerdirs: (lower.len() - usize::from(stands_on_files)) as u32,
            snapshotter: "overlayfs".to_owned(),
        }),
        RootfsMount::Directory { .. } | RootfsMount::ReadOnly => None,
    }
}

fn joined<T>(result: std::thread::Result<Result<T>>) -> Result<T> {
    result.unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "a capture thread panicked")))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Waits for the CRIU of a checkpoint that was killed: it puts the container's
/// processes right, and until then nobody else may touch them.
pub fn await_criu(work_dir: &Path) -> Result<()> {
    processes::await_orphan(work_dir, crate::criu::PATIENCE)
}

/// Ends the CRIU of a killed checkpoint of a container that is to die, too.
pub fn end_criu(target: &Target) -> Result<()> {
    processes::await_orphan(&default_work_dir(target), Duration::ZERO)
}

/// Removes what a killed checkpoint left in `world`; `was_there` says that the
/// directory is somebody else's.
pub fn remove_partial(world: &Path, was_there: bool) {
    if !world.exists() {
        return;
    }
    let removed = match was_there {
        true => super::directory::remove_unfinished(world).map(|_| ()),
        // Made by this checkpoint, so all that is in it is its own; also a
        // world that was whole when its helper was killed before it could say so.
        false => std::fs::remove_dir_all(world).context(|| "remove the directory"),
    };
    if let Err(error) = removed {
        tracing::warn!("a partial world stays in {}: {error}", world.display());
    }
}
