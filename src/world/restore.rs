//! Restore: verify, then bring back.
//!
//! [`prepare`] changes nothing on the host before the whole world is verified
//! and known to fit the new container; then it mounts the rootfs. [`restore`]
//! runs later, after containerd has put into the rootfs what it has. It makes
//! the container's writable layer what it was at the checkpoint's instant,
//! makes the control groups, and lets CRIU bring the processes back.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use oci_spec::runtime::{LinuxResources, Spec};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::checkpoint::ROOTFS_FILE;
use super::config::Config;
use super::file_name::FileName;
use super::fork::{self, Sibling};
use super::host::HostFacts;
use super::identity::Identity;
use super::lazily::LazyMemory;
use super::manifest::{Manifest, PartKind};
use super::policy::Policy;
use super::processes::{self, RestoreRequest, RestoredStdio};
use super::renew::Renewal;
use super::rootfs::{self, DevicePolicy, Privileged, RootfsMount};
use super::verify::{Verified, VerifiedWorld, verify, verify_again};
use super::{cgroup_path, spec};
use crate::cgroup::{Cgroup, Frozen};
use crate::criu::Criu;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::hooks;
use crate::lazy::{self, Line};
use crate::runtime::{self, Adopt, RootfsMountRequest, Target, View};

/// How often CRIU is asked where [`came_too_early`] holds.
const ATTEMPTS: u32 = 8;

/// How long a sibling that is to be paused may take to stand still.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a restore needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// The container to become.
    pub target: Target,
    /// Folder of the world.
    pub world: PathBuf,
    /// The rootfs as containerd gave it.
    pub rootfs: Vec<RootfsMountRequest>,
    /// Where the terminal's master is to go.
    pub console_socket: Option<PathBuf>,
    /// containerd's namespace.
    pub namespace: String,
    /// containerd's gRPC socket.
    pub containerd: PathBuf,
}

/// A container that runs again.
pub struct Restored {
    /// Its init's process id, a child of this process.
    pub pid: i32,
    /// The terminal's master, when there is one.
    pub pty_master: Option<OwnedFd>,
    /// Where its memory comes from, and the line that must be kept meanwhile.
    pub memory: Option<(LazyMemory, Line)>,
    /// What it was told as a sibling of a fork, and what was done.
    pub sibling: Option<Sibling>,
}

/// Everything that is known before anything changes.
struct Plan<'a> {
    request: &'a Request,
    config: Config,
    policy: Policy,
    criu: Criu,
    world: VerifiedWorld,
    spec: Spec,
    mount: RootfsMount,
    sibling: Option<Sibling>,
}

/// Checks everything that can be checked before anything changes, then mounts
/// the rootfs. `identify` asks containerd who the new container is.
pub fn prepare(request: &Request, identify: impl FnOnce() -> Result<Identity>) -> Result<()> {
    let plan = Plan::new(request, verified_for_all(request)?.as_ref())?;
    plan.verify_rootfs()?;
    let identity = identify()?;
    same_base(&plan.world.manifest, &identity)?;
    let has_files = has_files(&plan.world.manifest, &identity)?;
    own_spec(&plan, has_files)?;
    if let (true, Some(upper)) = (has_files, plan.mount.upper()?) {
        rootfs::begin_empty(&upper, plan.rootfs_tar()?)?;
    }
    remember(&request.target, &plan.world.verified())?;
    runtime::mount_rootfs(&request.rootfs, &request.target.rootfs())
}

/// Brings the container back.
pub fn restore(request: &Request) -> Result<Restored> {
    let plan = Plan::new(request, Some(&remembered(&request.target)))?;
    plan.bring_back_rootfs()?;
    let cgroup = plan.make_cgroup()?;
    plan.bring_back_processes(&cgroup).inspect_err(|_| {
        if let Err(error) = cgroup.remove() {
            tracing::warn!("after a failed restore: {error}");
        }
    })
}

impl<'a> Plan<'a> {
    /// `known`: what [`prepare`] has verified already, so that it is not hashed again,
    /// nor CRIU started only to be asked for its version.
    fn new(request: &'a Request, known: Option<&Verified>) -> Result<Self> {
        let config = Config::load()?;
        let criu = Criu::find(Some(&config.criu.path))?;
        let version = match known {
            Some(known) if !known.is_empty() => None,
            _ => Some(criu.require_version()?.to_string()),
        };
        let host = HostFacts::gather(version.as_deref())?;
        let world = match known {
            Some(known) => verify_again(&request.world, &host, known),
            None => verify(&request.world, &host),
        }?;
        for warning in &world.warnings {
            tracing::warn!("{warning}");
        }
        let spec = request.target.spec()?;
        spec::compatible(&world_spec(&world)?, &spec)?;
        let annotations = spec.annotations().clone().unwrap_or_default();
        let sibling = Sibling::of(&spec, &world.manifest.checksum)?;
        Ok(Plan {
            sibling,
            policy: Policy::new(&annotations, &config)?,
            mount: RootfsMount::parse(&request.rootfs)?,
            request,
            config,
            criu,
            world,
            spec,
        })
    }

    fn rootfs_policy(&self) -> rootfs::Policy {
        let rules = resources(&self.spec).devices().clone().unwrap_or_default();
        rootfs::Policy {
            devices: DevicePolicy::from_spec(&rules),
            privileged: Privileged::Keep,
        }
    }

    fn verify_rootfs(&self) -> Result<()> {
        match (
            self.world.manifest.part(PartKind::Rootfs),
            self.mount.upper()?,
        ) {
            (None, None) => Ok(()),
            (Some(_), Some(upper)) => {
                let policy = self.rootfs_policy();
                rootfs::verify(self.rootfs_tar()?, upper.layering(), &policy, None).map(|_| ())
            }
            (Some(_), None) => Err(misfit("the new container's rootfs is read-only")),
            (None, Some(_)) => Err(misfit("the world's rootfs was a read-only snapshot")),
        }
    }

    fn rootfs_tar(&self) -> Result<std::fs::File> {
        let name = FileName::new(ROOTFS_FILE)?;
        let part = self.world.manifest.part(PartKind::Rootfs);
        let file = part.and_then(|part| part.files.iter().find(|file| file.name == name));
        let file = file.ok_or_else(|| {
            Error::new(
                ErrorKind::CorruptWorld,
                format!("the world's rootfs part has no {ROOTFS_FILE}"),
            )
        })?;
        self.world.open(file)
    }

    /// Makes the writable layer what the world says, and nothing else. The
    /// overlay is taken down meanwhile: changes below a mounted one are undefined.
    fn bring_back_rootfs(&self) -> Result<()> {
        let Some(upper) = self.mount.upper()? else {
            return Ok(());
        };
        if fork::stands_on_files(&self.spec) {
            return self.bring_up_held_files();
        }
        if rootfs::same_as(&upper, self.rootfs_tar()?)? {
            return Ok(());
        }
        let rootfs = self.request.target.rootfs();
        runtime::unmount_rootfs(&rootfs)?;
        rootfs::bring_back(&upper, self.rootfs_tar()?, &self.rootfs_policy(), None)?;
        runtime::mount_rootfs(&self.request.rootfs, &rootfs)
    }

    /// The files are there already, in a layer that others have, too.
    fn bring_up_held_files(&self) -> Result<()> {
        let shared = self.mount.topmost_lower()?;
        let held = processes::held_files(&self.request.world)?;
        let paths = held.iter().map(|path| &path[..]);
        let count = rootfs::bring_up(&shared, &self.request.target.rootfs(), paths)?;
        tracing::debug!("{count} file(s) that processes hold were brought up");
        Ok(())
    }

    fn renewal<'b>(&'b self, sibling: &'b Sibling) -> Renewal<'b> {
        Renewal {
            target: &self.request.target,
            spec: &self.spec,
            sibling,
            old_hostname: self.world.manifest.dump.hostname.as_deref(),
        }
    }

    fn make_cgroup(&self) -> Result<Cgroup> {
        let path = runtime::cgroup_path(&self.spec, &self.request.target.id);
        runtime::own_cgroup(&self.request.target, &path)?;
        Cgroup::create(&path, &resources(&self.spec))
    }

    fn bring_back_processes(&self, cgroup: &Cgroup) -> Result<Restored> {
        let target = &self.request.target;
        let work_dir = target.state_root().join("restore");
        std::fs::create_dir_all(&work_dir).context(|| format!("make {}", work_dir.display()))?;
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let streams = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()].map(Some);
        let terminal = self.request.console_socket.is_some();
        // The images are root's alone, and CRIU reads them as the root of the namespace.
        let view = View::for_container(&self.request.world, target, &self.spec)?;
        self.world.recheck()?;
        let lazy = self.lazy_memory();
        let once = || {
            processes::restore(&mut RestoreRequest {
                criu: &self.criu,
                spec: &self.spec,
                parameters: &self.world.manifest.dump,
                bundle: &target.bundle,
                rootfs: &target.rootfs(),
                images_dir: view.as_ref().map_or(&self.request.world, View::path),
                work_dir: &work_dir,
                cgroup_procs: &cgroup.procs_files(),
                stdio: match terminal {
                    true => RestoredStdio::Terminal,
                    false => RestoredStdio::Streams(streams),
                },
                tcp: self.policy.tcp,
                lsm_profile: None,
                lazy_pages: lazy.is_some(),
                timeout: Duration::from_secs(self.config.checkpoint.timeout_seconds),
                cancel: None,
                before_running: &mut |pid| {
                    runtime::adopt(&Adopt {
                        target: target.clone(),
                        pid,
                    })?;
                    if let Some(sibling) = &self.sibling {
                        self.renewal(sibling).before_it_runs(pid)?;
                    }
                    hooks::oci::before_it_runs(target, &self.spec)
                },
                before_resuming: &mut |criu| match self.is_paused() {
                    true => cgroup.freezer()?.begin_without(criu),
                    false => Ok(()),
                },
            })
        };
        let attempt = || match &lazy {
            None => Ok((once()?, None)),
            Some(lazy) => {
                let (restored, line) = lazy.during(&work_dir, once)?;
                Ok((restored, Some((lazy.clone(), line))))
            }
        };
        let mut restored = attempt();
        for _ in 1..ATTEMPTS {
            match restored {
                Err(error) if view.is_some() && came_too_early(&error) => restored = attempt(),
                _ => break,
            }
        }
        let (restored, memory) = restored.inspect_err(|_| {
            // Where it is its memory that failed, the processes are there.
            let _ = cgroup.kill_all();
        })?;
        self.attach(restored, memory, cgroup)
    }

    /// Who has its memory, where it comes lazily.
    fn lazy_memory(&self) -> Option<LazyMemory> {
        let told = self.sibling.as_ref()?;
        let server = told.memory?;
        Some(LazyMemory {
            server: lazy::daemon::socket_of(&server),
            sibling: lazy::sibling_name(
                &self.request.namespace,
                &self.request.target.id,
                &told.fork,
            ),
        })
    }

    /// It is not to run a single instruction before it is resumed.
    fn is_paused(&self) -> bool {
        self.sibling.as_ref().is_some_and(|sibling| sibling.paused)
    }

    /// A terminal must have come exactly when one was asked for, and the hooks
    /// must agree; else nothing is left running.
    fn attach(
        &self,
        restored: processes::Restored,
        memory: Option<(LazyMemory, Line)>,
        cgroup: &Cgroup,
    ) -> Result<Restored> {
        let target = &self.request.target;
        let frozen = match self.is_paused() {
            true => cgroup.freeze(FREEZE_TIMEOUT).map(Frozen::leave_frozen),
            false => Ok(()),
        };
        let fault = match restored.pty_master.is_some() == self.request.console_socket.is_some() {
            true => frozen
                .and_then(|()| hooks::oci::when_it_runs(target, &self.spec))
                .err(),
            false => Some(Error::new(
                ErrorKind::Criu,
                "CRIU brought the processes back without their terminal",
            )),
        };
        let Some(fault) = fault else {
            if let Some(sibling) = &self.sibling {
                self.renewal(sibling).notify(restored.pid);
            }
            return Ok(Restored {
                pid: restored.pid,
                pty_master: restored.pty_master,
                memory,
                sibling: self.sibling.clone(),
            });
        };
        if let Some(pid) = Pid::from_raw(restored.pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
        cgroup.kill_all()?;
        Err(fault)
    }
}

/// Keeps what was verified in the bundle, which is ours, until [`restore`].
fn remember(target: &Target, verified: &Verified) -> Result<()> {
    let path = verified_file(target);
    let state = target.state_root();
    std::fs::create_dir_all(&state).context(|| format!("make {}", state.display()))?;
    let bytes = crate::json::to_bytes(verified)?;
    std::fs::write(&path, bytes).context(|| format!("write {}", path.display()))
}

/// Nothing where it cannot be read: then all is verified again.
fn remembered(target: &Target) -> Verified {
    let bytes = std::fs::read(verified_file(target)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn verified_file(target: &Target) -> PathBuf {
    target.state_root().join("verified.json")
}

fn world_spec(world: &VerifiedWorld) -> Result<Spec> {
    let part = world.manifest.part(PartKind::Spec);
    let file = part
        .and_then(|part| part.files.first())
        .ok_or_else(|| Error::new(ErrorKind::CorruptWorld, "the world has no spec part"))?;
    spec::parse(&world.read(file, spec::LIMITS.bytes)?)
}

fn resources(spec: &Spec) -> LinuxResources {
    let linux = spec.linux().as_ref();
    linux
        .and_then(|linux| linux.resources().clone())
        .unwrap_or_default()
}

/// Refuses another base image: the writable layer and the processes' mapped
/// files make sense only over the layers they were made on.
fn same_base(world: &Manifest, new: &Identity) -> Result<()> {
    let was = world.base.as_ref().and_then(|base| base.chain_id.as_ref());
    match (was, &new.chain_id) {
        (Some(was), Some(new)) if was != new => {
            let image = world.image.as_ref().map(|image| image.name.as_str());
            Err(Error::new(
                ErrorKind::ForeignWorld,
                format!(
                    "the world stands on the layers {was} (image {}), the new container on {new}: \
                     make the container from the world's image",
                    image.unwrap_or("unknown")
                ),
            ))
        }
        _ => Ok(()),
    }
}

/// Whether the new container stands on the world's files already; refuses those of another.
fn has_files(world: &Manifest, new: &Identity) -> Result<bool> {
    let Some(has) = &new.committed else {
        return Ok(false);
    };
    let part = world.part(PartKind::Rootfs);
    match part.and_then(|part| part.files.first()) {
        Some(file) if file.sha256 == *has => Ok(true),
        _ => Err(Error::new(
            ErrorKind::ForeignWorld,
            "the new container stands on the files of another world: make it from the image, or \
             with `world fork`",
        )),
    }
}

/// What of the spec must be the container's own, before anything relies on it: its cgroup
/// ([`cgroup_path`]), the layers it says it stands on, and a sibling's own hosts and hostname.
fn own_spec(plan: &Plan<'_>, has_files: bool) -> Result<()> {
    let (target, world) = (&plan.request.target, &plan.world);
    let old = &world.manifest.container.id;
    let own = cgroup_path::own(target, &plan.spec, &world_spec(world)?, old);
    let mut changed = own.is_some();
    let mut spec = own.unwrap_or_else(|| plan.spec.clone());
    changed |= fork::say_stands_on_files(&mut spec, has_files);
    if let Some(sibling) = &plan.sibling {
        changed |= plan.renewal(sibling).own_sources(&mut spec)?;
    }
    if !changed {
        return Ok(());
    }
    let file = target.bundle.join("config.json");
    spec.save(&file).map_err(|error| {
        Error::caused_by(ErrorKind::Io, format!("write {}", file.display()), error)
    })
}

/// What `world fork` has verified once for all siblings: it lies beside their world.
fn verified_for_all(request: &Request) -> Result<Option<Verified>> {
    let annotations = request.target.spec()?.annotations().clone();
    let is_sibling = annotations.is_some_and(|all| all.contains_key(fork::FORK_LABEL));
    Ok(match is_sibling {
        true => fork::verified(&request.world).filter(|known| !known.is_empty()),
        false => None,
    })
}

fn misfit(what: &str) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        format!("the new container does not fit the world: {what}"),
    )
}

/// CRIU's first process reads the image of its time namespace without waiting until the ids of
/// its user namespace are mapped: then it is nobody, and may not. CRIU has cleaned up by now.
fn came_too_early(error: &Error) -> bool {
    let text = error.to_string();
    text.contains("timens-") && text.contains("Permission denied")
}
