//! `world checkpoint`: a running container becomes a world of the store.

use std::time::Instant;

use serde::Serialize;

use super::output::{self, Format};
use super::places::{ContainerdArgs, StoreArgs};
use super::progress::{self, Progress};
use crate::containerd::{CheckpointWishes, Container, Namespace, TaskState};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::PAGE_SIZE;
use crate::store::{Lease, Reference, Workspace, WorldName};
use crate::world::artifact::{
    self, BaseImage, PackRequest, PackedWorld, Parent, last_world_of, pack,
};
use crate::world::trust::WORLD_LABEL;

/// Our runtime's name.
const RUNTIME: &str = "io.containerd.world.v1";

/// How a container becomes a world, for every verb that makes one of it.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Manner {
    /// The world that this one follows [default: the container's last one]
    #[arg(long, value_name = "WORLD")]
    parent: Option<Reference>,

    /// Carry the base image along, so that the world can be restored where no registry has it
    #[arg(long)]
    with_base: bool,

    /// Allow file locks
    #[arg(long)]
    file_locks: bool,

    /// Use pages of all worlds of the store, not only of its own lineage: smaller, but whoever
    /// gets it then gets pages of strangers' memory with it
    #[arg(long)]
    share_all: bool,
}

/// `world checkpoint`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The container
    container: String,

    /// What to call the world [default: the container's id, as far as a name may hold it]
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<WorldName>,

    /// End the container when its world is safe
    #[arg(long)]
    stop: bool,

    /// Allow established TCP connections to outside
    #[arg(long)]
    tcp: bool,

    #[command(flatten)]
    manner: Manner,

    #[command(flatten)]
    store: StoreArgs,

    #[command(flatten)]
    containerd: ContainerdArgs,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Report {
    digest: Digest,
    name: String,
    /// The world that had the name before.
    displaced: Option<Digest>,
    parent: Option<Digest>,
    /// Of all that the world consists of.
    bytes: u64,
    /// Of what the store did not have before.
    new_bytes: u64,
    frozen_ns: u64,
    total_ns: u64,
    stopped: bool,
}

pub(super) fn run(args: &Args, format: Format) -> Result<()> {
    let begun = Instant::now();
    let store = args.store.open()?;
    let lease = store.lease()?;
    let containerd = args.containerd.connect()?;
    let namespace = containerd.namespace(&args.containerd.namespace)?;
    let container = running(&namespace, &args.container)?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => name_for(&container.id)?,
    };
    let workspace = match args.stop {
        // Between the container's end and the world's publication, this is all there is.
        true => store.lasting_workspace(&format!("checkpoint-{}", container.id))?,
        false => store.workspace("checkpoint")?,
    };
    let taking = Taking {
        container: &container,
        manner: &args.manner,
        exit: args.stop,
        tcp: args.tcp,
        name: Some(&name),
    };
    let packed = match taking.take(&lease, &namespace, &workspace) {
        Ok(packed) => packed,
        Err(error) => return Err(keep_only_copy(args, workspace, error)),
    };
    workspace.remove()?;
    let report = Report {
        digest: packed.published.digest,
        name: name.to_string(),
        displaced: packed.published.displaced,
        parent: artifact::parent_of(&packed.artifact.annotations),
        bytes: packed.artifact.size() + packed.published.size,
        new_bytes: packed.new_bytes,
        frozen_ns: packed.manifest.times.frozen_ns,
        total_ns: u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX),
        stopped: args.stop,
    };
    output::print(format, &report, words)
}

fn words(report: &Report) -> String {
    let mut text = format!(
        "{}\nname    {}\nsize    {}, {} new\nfrozen  {} of {}\n",
        report.digest,
        report.name,
        progress::size(report.bytes),
        progress::size(report.new_bytes),
        progress::duration(report.frozen_ns),
        progress::duration(report.total_ns),
    );
    text += &output::displaced(report.displaced);
    text
}

/// The container, if it runs under our runtime.
pub(super) fn running(namespace: &Namespace, id: &str) -> Result<Container> {
    let container = namespace.container(id)?;
    if container.runtime != RUNTIME {
        let text = format!(
            "container {id} runs under {}: only those under {RUNTIME} can become worlds",
            container.runtime
        );
        return Err(Error::new(ErrorKind::WrongState, text));
    }
    match namespace.task(id)? {
        Some(TaskState::Running | TaskState::Paused) => Ok(container),
        _ => {
            let text = format!("container {id} does not run");
            Err(Error::new(ErrorKind::WrongState, text))
        }
    }
}

/// A container's id may hold what a world's name may not.
fn name_for(id: &str) -> Result<WorldName> {
    id.to_ascii_lowercase()
        .parse()
        .map_err(|error: Error| error.within(format!("container {id} needs a NAME for its world")))
}

/// A checkpoint of a running container into a workspace, and from there into the store.
pub(super) struct Taking<'a> {
    pub container: &'a Container,
    pub manner: &'a Manner,
    /// End the container when its world is safe.
    pub exit: bool,
    /// Allow established connections to outside.
    pub tcp: bool,
    /// What to call the world.
    pub name: Option<&'a WorldName>,
}

impl Taking<'_> {
    /// The world's directory is left in the workspace, as `world`.
    pub fn take(
        &self,
        lease: &Lease,
        namespace: &Namespace,
        workspace: &Workspace,
    ) -> Result<PackedWorld> {
        let parent = self.parent(lease, namespace)?;
        let base = match self.manner.with_base {
            true => Some(base(lease, namespace, self.container)?),
            false => None,
        };
        let world = workspace.path().join("world");
        let waiting = Progress::waiting("checkpoint");
        namespace.checkpoint(
            &self.container.id,
            &CheckpointWishes {
                world: world.clone(),
                exit: self.exit,
                file_locks: self.manner.file_locks,
                tcp: self.tcp,
            },
        )?;
        drop(waiting);
        let bar = Progress::of_bytes("pack", 0);
        pack(&PackRequest {
            world: &world,
            lease,
            parent,
            share_all: self.manner.share_all,
            base: base.as_ref(),
            name: self.name,
            progress: &|pages| bar.add(pages * PAGE_SIZE as u64),
        })
    }

    /// The world that the new one follows.
    fn parent(&self, lease: &Lease, namespace: &Namespace) -> Result<Option<Parent>> {
        let (store, container) = (lease.store(), self.container);
        let restored_from: Option<Digest> =
            (container.labels.get(WORLD_LABEL)).and_then(|digest| digest.parse().ok());
        let is_former_state = |digest: &Digest| -> Result<bool> {
            let (_, world) = artifact::load(store, digest)?;
            let own = world.container.id == container.id
                && world.container.namespace == namespace.name()
                && container
                    .created
                    .is_some_and(|created| created < world.created);
            Ok(own || restored_from == Some(*digest))
        };
        if let Some(parent) = &self.manner.parent {
            let world = store.resolve_held(parent, lease)?;
            let former_state = is_former_state(&world)?;
            return Ok(Some(Parent {
                world,
                former_state,
            }));
        }
        let last = last_world_of(store, namespace.name(), &container.id)?;
        for world in [last, restored_from].into_iter().flatten() {
            // One that is damaged, or gone, is only a pity.
            if is_former_state(&world).unwrap_or(false) {
                return Ok(Some(Parent {
                    world,
                    former_state: true,
                }));
            }
        }
        Ok(None)
    }
}

/// The image that the container stands on, from containerd's store.
fn base(lease: &Lease, namespace: &Namespace, container: &Container) -> Result<BaseImage> {
    let Some(chain) = namespace.identity(&container.id)?.chain_id else {
        let text = format!(
            "container {} stands on no image that could be carried along",
            container.id
        );
        return Err(Error::new(ErrorKind::WrongState, text));
    };
    let bar = Progress::of_bytes("image", 0);
    namespace.carry_image(&container.image, &chain, lease, &|bytes| bar.add(bytes))
}

/// After a failure: the workspace stays if the container has ended for it.
fn keep_only_copy(args: &Args, workspace: Workspace, error: Error) -> Error {
    let world = workspace.path().join("world");
    if !args.stop || !world.join(crate::world::manifest::MANIFEST_NAME).exists() {
        if let Err(other) = workspace.remove() {
            tracing::warn!("{other}");
        }
        return error;
    }
    error.within(format!(
        "the container has ended and its world is whole in {}, from where `world import` takes it",
        world.display()
    ))
}
