//! What is forked: a world of the store, or a container that becomes one.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Instant;

use super::siblings::Phase;
use super::{Args, Memory, nonsense};
use crate::cli::checkpoint::{self, Taking};
use crate::cli::progress::Progress;
use crate::cli::restore;
use crate::containerd::{Container, Namespace};
use crate::digest::Digest;
use crate::error::{ErrorKind, IoContext, Result};
use crate::store::{Lease, Reference, Workspace};
use crate::world::artifact::{self, Artifact};
use crate::world::fork;
use crate::world::manifest::{Manifest, PartFile, PartKind};
use crate::world::verify::Verified;

/// A world that is to be forked, and the folder that all siblings are brought back from.
pub(super) struct Source {
    pub digest: Digest,
    pub artifact: Artifact,
    pub manifest: Manifest,
    /// How long its container stood still for it.
    pub frozen_ns: Option<u64>,
    workspace: Workspace,
    /// The checkpoint has left the world's directory in the workspace.
    is_there: bool,
}

impl Source {
    pub fn of(
        args: &Args,
        lease: &Lease,
        namespace: &Namespace,
        phases: &mut Vec<Phase>,
    ) -> Result<Source> {
        let world = match args.container {
            true => None,
            false => world(&args.source, lease)?,
        };
        let running = checkpoint::running(namespace, &args.source);
        match (world, running) {
            (Some(digest), Err(_)) => Source::stored(digest, lease),
            (None, Ok(container)) => Source::running(args, lease, namespace, &container, phases),
            (Some(_), Ok(_)) => Err(nonsense(format!(
                "{0} is a world and a running container: say {0}:latest for the world, or \
                 --container",
                args.source
            ))),
            (None, Err(error)) if error.kind() == ErrorKind::NotFound => {
                Err(error.within("no world is called so, and no container"))
            }
            (None, Err(error)) => Err(error),
        }
    }

    fn stored(digest: Digest, lease: &Lease) -> Result<Source> {
        let (artifact, manifest) = artifact::load(lease.store(), &digest)?;
        Ok(Source {
            digest,
            artifact,
            manifest,
            frozen_ns: None,
            workspace: lease.store().workspace("fork")?,
            is_there: false,
        })
    }

    fn running(
        args: &Args,
        lease: &Lease,
        namespace: &Namespace,
        container: &Container,
        phases: &mut Vec<Phase>,
    ) -> Result<Source> {
        let begun = Instant::now();
        let workspace = lease.store().workspace("fork")?;
        let taking = Taking {
            container,
            manner: &args.manner,
            exit: false,
            tcp: args.tcp == super::Tcp::Heir,
            name: args.name.as_ref(),
        };
        let packed = taking.take(lease, namespace, &workspace)?;
        phases.push(Phase::since("checkpoint", begun));
        Ok(Source {
            digest: packed.published.digest,
            frozen_ns: Some(packed.manifest.times.frozen_ns),
            artifact: packed.artifact,
            manifest: packed.manifest,
            workspace,
            is_there: true,
        })
    }

    /// Makes the folder that the siblings are brought back from, and verifies it once for all.
    pub fn stage(&self, memory: Memory, lease: &Lease, phases: &mut Vec<Phase>) -> Result<()> {
        let begun = Instant::now();
        let _waiting = Progress::waiting("unpack");
        let verified = match (self.is_there, memory) {
            // The checkpoint has only just written it, and CRIU reads little of its memory.
            (true, Memory::Lazy) => self.as_written()?,
            _ => self.unpack(memory, lease)?,
        };
        fork::note_verified(&self.world(), &verified)?;
        phases.push(Phase::since("unpack", begun));
        Ok(())
    }

    fn as_written(&self) -> Result<Verified> {
        let world = self.world();
        let dir = File::open(&world).context(|| format!("open {}", world.display()))?;
        Verified::as_made(dir.as_fd(), &self.manifest)
    }

    /// Anew also where it is there: not all that the container had is a sibling's, too.
    fn unpack(&self, memory: Memory, lease: &Lease) -> Result<Verified> {
        let world = self.world();
        if self.is_there {
            std::fs::remove_dir_all(&world).context(|| format!("remove {}", world.display()))?;
        }
        let lazily = memory == Memory::Lazy;
        artifact::unpack_for_fork(lease, &self.digest, &world, lazily).map(|(_, known)| known)
    }

    /// The folder that all siblings are brought back from.
    pub fn world(&self) -> PathBuf {
        self.workspace.path().join("world")
    }

    /// The archive of the container's own files, where it has some.
    pub fn rootfs(&self) -> Result<Option<PartFile>> {
        let part = self.manifest.part(PartKind::Rootfs);
        Ok(part.and_then(|part| part.files.first().cloned()))
    }

    pub fn open(&self, file: &PartFile) -> Result<File> {
        let path = self.world().join(file.name.as_str());
        File::open(&path).context(|| format!("open {}", path.display()))
    }

    /// The spec that its container ran with.
    pub fn spec(&self, lease: &Lease) -> Result<oci_spec::runtime::Spec> {
        let bytes = lease
            .store()
            .read(&self.artifact.spec.digest, restore::SPEC)?;
        crate::world::spec::parse(&bytes)
    }

    /// Removes the folder.
    pub fn remove(self) -> Result<()> {
        self.workspace.remove()
    }
}

/// The world of this name, if there is one.
fn world(source: &str, lease: &Lease) -> Result<Option<Digest>> {
    let Ok(reference) = source.parse::<Reference>() else {
        return Ok(None);
    };
    match lease.store().resolve_held(&reference, lease) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}
