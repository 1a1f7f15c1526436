//! `world rollback`: a container goes back to a world of it, under the same id.
//!
//! Everything that can be known beforehand is looked at while the container still runs, and
//! its files are made ready beside the ones it has. Only then is it ended. What it had (its
//! writable snapshot) goes when the world runs; after a failure it is given back.

use std::fs::File;
use std::time::Instant;

use serde::Serialize;

use super::checkpoint::{self, Manner, Taking};
use super::output::{self, Format};
use super::places::{ContainerdArgs, StoreArgs};
use super::progress::{self, Progress};
use super::{restore, rm};
use crate::containerd::{Container, Namespace, Streams};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::memory::PAGE_SIZE;
use crate::store::{Lease, Reference, Workspace, WorldName};
use crate::world::artifact::{self, Artifact};
use crate::world::fork;
use crate::world::manifest::{Manifest, PartKind};
use crate::world::rootfs::{self, DevicePolicy, Privileged};
use crate::world::spec;
use crate::world::trust::WORLD_LABEL;

/// `world rollback`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The container: running, stopped, or without a task
    container: String,

    /// The world that it goes back to
    world: Reference,

    /// Keep what it is now as a world of this name; without, its memory and files are lost
    #[arg(long, value_name = "NAME[:TAG]")]
    keep: Option<WorldName>,

    /// Where its output goes [default: where it went, if that was a log]
    #[arg(long, value_name = "URI")]
    log_uri: Option<String>,

    #[command(flatten)]
    store: StoreArgs,

    #[command(flatten)]
    containerd: ContainerdArgs,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Report {
    id: String,
    pid: u32,
    world: Digest,
    /// The world that holds what it was before.
    kept: Option<Digest>,
    /// How long it did not run: from its end until its processes were back.
    away_ns: u64,
    total_ns: u64,
}

pub(super) fn run(args: &Args, format: Format) -> Result<()> {
    let begun = Instant::now();
    let store = args.store.open_existing()?;
    let lease = store.lease()?;
    let digest = store.resolve_held(&args.world, &lease)?;
    let (artifact, manifest) = artifact::load(&store, &digest)?;
    let containerd = args.containerd.connect()?;
    let namespace = containerd.namespace(&args.containerd.namespace)?;
    let container = namespace.container(&args.container)?;
    let world_spec = spec::parse(&store.read(&artifact.spec.digest, restore::SPEC)?)?;
    check(&container, &manifest, &world_spec)?;
    let workspace = store.workspace("rollback")?;
    unpack(&lease, &digest, &manifest, &workspace)?;
    let rollback = Rollback {
        namespace: &namespace,
        container: &container,
        artifact: &artifact,
        manifest: &manifest,
        world: digest,
        workspace: &workspace,
        key: format!("{}-{}", container.id, fork::new_id()?),
        streams: match &args.log_uri {
            Some(uri) => Streams::to_log(Some(uri)),
            None => namespace.log_streams(&container.id)?,
        },
    };
    let (pid, kept, away) = rollback.run(args, &lease)?;
    workspace.remove()?;
    let report = Report {
        id: container.id,
        pid,
        world: digest,
        kept,
        away_ns: away,
        total_ns: nanos(begun),
    };
    output::print(format, &report, words)
}

fn words(report: &Report) -> String {
    let mut text = format!("{}\npid     {}\n", report.id, report.pid);
    if let Some(kept) = report.kept {
        text += &format!("before  {kept}\n");
    }
    text + &format!(
        "away    {} of {}\n",
        progress::duration(report.away_ns),
        progress::duration(report.total_ns)
    )
}

/// Everything that can be told from what is written of both.
fn check(
    container: &Container,
    manifest: &Manifest,
    world_spec: &oci_spec::runtime::Spec,
) -> Result<()> {
    if container.runtime != manifest.container.runtime {
        let text = format!(
            "container {} runs under {}, the world under {}",
            container.id, container.runtime, manifest.container.runtime
        );
        return Err(Error::new(ErrorKind::WrongState, text));
    }
    for warning in restore::suits(manifest)? {
        tracing::warn!("{warning}");
    }
    spec::compatible(world_spec, &container.spec)
}

fn unpack(
    lease: &Lease,
    digest: &Digest,
    manifest: &Manifest,
    workspace: &Workspace,
) -> Result<()> {
    let bar = Progress::of_bytes("unpack", manifest.size());
    artifact::unpack(lease, digest, &workspace.path().join("world"), &|pages| {
        bar.add(pages * PAGE_SIZE as u64);
    })?;
    crate::world::verify::verify_digests(&workspace.path().join("world")).map(drop)
}

struct Rollback<'a> {
    namespace: &'a Namespace<'a>,
    container: &'a Container,
    artifact: &'a Artifact,
    manifest: &'a Manifest,
    world: Digest,
    workspace: &'a Workspace,
    /// Of the new writable snapshot.
    key: String,
    streams: Streams,
}

impl Rollback<'_> {
    /// Returns init, the world that was kept, and how long nothing ran, in nanoseconds.
    fn run(&self, args: &Args, lease: &Lease) -> Result<(u32, Option<Digest>, u64)> {
        let (base, chain_id) = restore::base(self.manifest)?;
        let snapshotter = &base.snapshotter;
        if *snapshotter != self.container.snapshotter {
            let text = "the container's snapshotter is not the world's";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let image = restore::image::find(
            self.namespace,
            base,
            &chain_id,
            self.artifact,
            self.manifest,
        )?;
        image.provide(
            self.namespace,
            lease.store(),
            self.artifact,
            base,
            &chain_id,
        )?;
        // containerd's sweep must not take it before the container refers to it.
        let patience = std::time::Duration::from_secs(600);
        let held = self
            .namespace
            .lease(&format!("worldshim-{}", self.key), patience)?;
        let ready = self
            .make_files(snapshotter, &chain_id, &held)
            .and_then(|()| self.keep(args, lease));
        let kept = match ready {
            Ok(kept) => kept,
            Err(error) => {
                let _ = self.namespace.remove_snapshot(snapshotter, &self.key);
                return Err(error);
            }
        };
        let away = Instant::now();
        let pid = self.replace().map_err(|error| self.undo(error, kept))?;
        let away = nanos(away);
        let old = &self.container.snapshot_key;
        if let Err(error) = self.namespace.remove_snapshot(snapshotter, old) {
            tracing::warn!("what the container had stays: {error}");
        }
        Ok((pid, kept, away))
    }

    /// The files as the world has them, beside those that the container has.
    fn make_files(
        &self,
        snapshotter: &str,
        chain_id: &str,
        lease: &crate::containerd::ContainerdLease<'_>,
    ) -> Result<()> {
        let mount = (self.namespace).prepare_rootfs(snapshotter, &self.key, chain_id, lease)?;
        let part = self.manifest.part(PartKind::Rootfs);
        let file = part.and_then(|part| part.files.first());
        let (Some(upper), Some(file)) = (mount.upper()?, file) else {
            return Ok(());
        };
        let path = self.workspace.path().join("world").join(file.name.as_str());
        let tar = File::open(&path).context(|| format!("open {}", path.display()))?;
        let linux = self.container.spec.linux().as_ref();
        let resources = linux.and_then(|linux| linux.resources().clone());
        let rules = resources.and_then(|resources| resources.devices().clone());
        let policy = rootfs::Policy {
            devices: DevicePolicy::from_spec(&rules.unwrap_or_default()),
            privileged: Privileged::Keep,
        };
        rootfs::bring_back(&upper, tar, &policy, None).map(drop)
    }

    /// What it is now becomes a world, and it ends with that.
    fn keep(&self, args: &Args, lease: &Lease) -> Result<Option<Digest>> {
        let Some(name) = &args.keep else {
            return Ok(None);
        };
        let container = checkpoint::running(self.namespace, &self.container.id)?;
        let workspace = lease.store().workspace("checkpoint")?;
        let taking = Taking {
            container: &container,
            manner: &Manner::default(),
            exit: false,
            tcp: true,
            name: Some(name),
        };
        let packed = taking.take(lease, self.namespace, &workspace)?;
        workspace.remove()?;
        Ok(Some(packed.published.digest))
    }

    fn replace(&self) -> Result<u32> {
        let (namespace, id) = (self.namespace, &self.container.id);
        rm::end(namespace, id)?;
        let mut labels = self.container.labels.clone();
        labels.insert(WORLD_LABEL.to_owned(), self.world.to_string());
        namespace.give_snapshot(id, &self.key, &labels)?;
        let container = Container {
            snapshot_key: self.key.clone(),
            ..self.container.clone()
        };
        namespace.create_task(
            &container,
            &self.workspace.path().join("world"),
            &self.streams,
        )?;
        namespace.start_task(id)
    }

    /// Gives the container its files back.
    fn undo(&self, error: Error, kept: Option<Digest>) -> Error {
        let (namespace, old) = (self.namespace, self.container);
        let undone = rm::end(namespace, &old.id)
            .and_then(|()| namespace.give_snapshot(&old.id, &old.snapshot_key, &old.labels))
            .and_then(|()| namespace.remove_snapshot(&old.snapshotter, &self.key));
        let files = match undone {
            Ok(()) => "it has the files that it had before".to_owned(),
            Err(error) => format!(
                "its files before are in the snapshot {}, which could not be given back: {error}",
                old.snapshot_key
            ),
        };
        let kept = match kept {
            Some(kept) => format!("; what it was is the world {kept}"),
            None => String::new(),
        };
        error.within(format!(
            "container {} was stopped and does not run, {files}{kept}; the rollback failed",
            old.id
        ))
    }
}

fn nanos(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
