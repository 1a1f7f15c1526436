//! From a world directory to blobs of a store and the manifest over them.

use std::fs::File;
use std::io::{BufWriter, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags};

use super::base::{self, BaseImage};
use super::layout::{Artifact, Content};
use super::{annotations, images, joined, origin_of, rootfs};
use crate::digest::Digest;
use crate::error::IoContext;
use crate::memory::{self, images::Images, images::is_pages, sharing::Sharing};
use crate::store::{Lease, Published, Store, WorldName, Written};
use crate::world::file_name::FileName;
use crate::world::folder;
use crate::world::manifest::{LIMITS, MANIFEST_NAME, Manifest, PartFile, PartKind};
use crate::{Error, ErrorKind, Result};

/// What [`pack`] needs.
pub struct PackRequest<'a> {
    /// The world directory.
    pub world: &'a Path,
    /// Whose lease holds all that is used and written.
    pub lease: &'a Lease,
    /// The world that this one follows, where it is in the store.
    pub parent: Option<Parent>,
    /// Use pages of all packs of the store, not only of those of its own lineage: whoever gets this world then gets pages of others' memory with it.
    pub share_all: bool,
    /// The image that it stands on, to be carried along.
    pub base: Option<&'a BaseImage>,
    /// Its name in the store.
    pub name: Option<&'a WorldName>,
    /// Told how many pages of memory were done since it was told last.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// The world that another one follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// Its manifest's digest.
    pub world: Digest,
    /// It is a former state of the same writable layer: the container's own, or the one that
    /// its container was restored from. Only then may the rootfs become a layer on the
    /// parent's: files of the image that a sibling changed would stay hidden.
    pub former_state: bool,
}

/// A world that was packed and published.
pub struct PackedWorld {
    /// Where it stands in the store.
    pub published: Published,
    /// What it consists of.
    pub artifact: Artifact,
    /// What is said of it.
    pub manifest: Manifest,
    /// Bytes of blobs that the store did not have before.
    pub new_bytes: u64,
}

/// Makes a world directory a world of the store. The directory is left as it is.
///
/// A directory that was packed before gives the same world again.
pub fn pack(request: &PackRequest) -> Result<PackedWorld> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(request.world, flags, Mode::empty())
        .context(|| format!("open the world directory {}", request.world.display()))?;
    let bytes = read_manifest(dir.as_fd())?;
    let manifest = Manifest::parse(&bytes)?;
    let base = base_of(request, &manifest)?;
    let container = &manifest.container.id;
    if let Some(artifact) = packed_before(request.lease, container, &Digest::of(&bytes), base)? {
        return publish(request, artifact, manifest, 0);
    }
    let packing = Packing {
        dir,
        manifest,
        request,
        new_bytes: AtomicU64::new(request.base.map_or(0, |base| base.new_bytes)),
    };
    let artifact = packing.artifact(&bytes)?;
    let new_bytes = packing.new_bytes.into_inner();
    publish(request, artifact, packing.manifest, new_bytes)
}

fn publish(
    request: &PackRequest,
    artifact: Artifact,
    manifest: Manifest,
    new_bytes: u64,
) -> Result<PackedWorld> {
    let bytes = artifact.to_bytes()?;
    let store = request.lease.store();
    let published = store.publish(request.lease, &bytes, &artifact.annotations, request.name)?;
    let new_bytes = match published.new {
        true => new_bytes + published.size,
        false => new_bytes,
    };
    Ok(PackedWorld {
        published,
        artifact,
        manifest,
        new_bytes,
    })
}

/// What is to be carried along of the base image, which must be what the world stands on.
fn base_of<'a>(request: &PackRequest<'a>, manifest: &Manifest) -> Result<&'a [Content]> {
    let blobs = request.base.map_or(&[][..], |base| &base.blobs);
    let layers = manifest.base.as_ref();
    let chain = layers.and_then(|layers| layers.chain_id.as_deref());
    base::check(request.lease.store(), blobs, chain)?;
    Ok(blobs)
}

/// The world of the store that has this `world.json`, and this base image.
fn packed_before(
    lease: &Lease,
    container: &str,
    config: &Digest,
    base: &[Content],
) -> Result<Option<Artifact>> {
    let store = lease.store();
    if store.blob_size(config)?.is_none() {
        return Ok(None);
    }
    for world in store.entries()? {
        if !annotations::may_be_of(container, &world.annotations) {
            continue;
        }
        let Ok(manifest) = store.manifest(&world.digest) else {
            continue;
        };
        let Ok(artifact) = Artifact::of(&manifest) else {
            continue;
        };
        // One that is damaged or being swept is packed anew.
        let same = artifact.config.digest == *config && artifact.base == base;
        if same && lease.hold_world(&world.digest).is_ok() {
            return Ok(Some(artifact));
        }
    }
    Ok(None)
}

/// The newest world in the store of a container of this id.
pub fn last_world_of(store: &Store, namespace: &str, container: &str) -> Result<Option<Digest>> {
    for world in store.entries()?.into_iter().rev() {
        if !annotations::may_be_of(container, &world.annotations) {
            continue;
        }
        let Ok((_, manifest)) = super::load(store, &world.digest) else {
            continue;
        };
        if manifest.container.id == container && manifest.container.namespace == namespace {
            return Ok(Some(world.digest));
        }
    }
    Ok(None)
}

struct Packing<'a> {
    dir: OwnedFd,
    manifest: Manifest,
    request: &'a PackRequest<'a>,
    new_bytes: AtomicU64,
}

impl Packing<'_> {
    fn artifact(&self, config: &[u8]) -> Result<Artifact> {
        let parent = self.parent()?;
        let origin = match &parent {
            Some((parent, _)) => origin_of(parent),
            None => Digest::of(config),
        };
        // Each waits for the disk now and then.
        let (files, memory) = std::thread::scope(|scope| {
            let files = scope.spawn(|| self.rootfs(parent.as_ref()));
            let memory = self.memory(origin, parent.as_ref().map(|(parent, _)| parent));
            (joined(files.join()), memory)
        });
        let (rootfs, (pages, packs)) = (files?, memory?);
        let spec = self.small(PartKind::Spec)?;
        let env = self.small(PartKind::Env)?;
        let images = self.images()?;
        let config = self.request.lease.put(config)?;
        let follows = parent.and(self.request.parent).map(|parent| parent.world);
        let annotations = annotations::annotations(&self.manifest, origin, follows);
        Ok(Artifact {
            config: self.count(config),
            rootfs,
            spec,
            env,
            images,
            pages,
            packs,
            base: self
                .request
                .base
                .map_or(Vec::new(), |base| base.blobs.clone()),
            annotations,
        })
    }

    /// A parent that is damaged or none of ours is only a pity.
    fn parent(&self) -> Result<Option<(Artifact, Manifest)>> {
        let Some(Parent { world, .. }) = self.request.parent else {
            return Ok(None);
        };
        let held = self.request.lease.hold_world(&world);
        match held.and_then(|()| super::load(self.request.lease.store(), &world)) {
            Ok(parent) => Ok(Some(parent)),
            Err(error) => {
                tracing::warn!("world {world} does not serve as a parent: {error}");
                Ok(None)
            }
        }
    }

    fn count(&self, written: Written) -> Content {
        if written.new {
            self.new_bytes.fetch_add(written.size, Ordering::Relaxed);
        }
        written.into()
    }

    /// As layers on the parent's where it is a former state on the same image.
    fn rootfs(&self, parent: Option<&(Artifact, Manifest)>) -> Result<Vec<Content>> {
        let former_state = self
            .request
            .parent
            .is_some_and(|parent| parent.former_state);
        let chain_id =
            |world: &Manifest| world.base.as_ref().and_then(|base| base.chain_id.clone());
        let parent = parent
            .filter(|(_, parent)| former_state && chain_id(parent) == chain_id(&self.manifest))
            .map(|(artifact, _)| artifact);
        let Some(part) = self.manifest.part(PartKind::Rootfs) else {
            return Ok(Vec::new());
        };
        let file = &part.files[0];
        let tar = self.open(file)?;
        let packed = rootfs::pack(&tar, file, parent, self.request.lease)?;
        self.new_bytes
            .fetch_add(packed.new_bytes, Ordering::Relaxed);
        Ok(packed.layers)
    }

    /// A part of one file that fits into memory.
    fn small(&self, kind: PartKind) -> Result<Content> {
        let file = &self.manifest.need_part(kind)?.files[0];
        let mut bytes = Vec::new();
        self.open(file)?
            .take(file.size)
            .read_to_end(&mut bytes)
            .context(|| format!("read {}", file.name))?;
        let written = self.request.lease.put(&bytes)?;
        if (written.digest, written.size) != (file.sha256, file.size) {
            let text = format!("{} is not what world.json says", file.name);
            return Err(Error::new(ErrorKind::CorruptWorld, text));
        }
        Ok(self.count(written))
    }

    fn images(&self) -> Result<Content> {
        let files = small_images(&self.manifest)?;
        let blob = self.request.lease.write_blob()?;
        let mut out = BufWriter::with_capacity(256 << 10, blob);
        images::write(&files, |file| self.open(file), &mut out)?;
        let blob = out
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error);
        let written = blob.context(|| "store CRIU's images")?.finish()?;
        Ok(self.count(written))
    }

    fn memory(&self, origin: Digest, parent: Option<&Artifact>) -> Result<(Content, Vec<Content>)> {
        let part = self.manifest.need_part(PartKind::Processes)?;
        let names = part.files.iter().map(|file| file.name.as_str());
        let images = Images::look(self.dir.as_fd(), names)?;
        let sharing = Sharing {
            origin,
            all: self.request.share_all,
        };
        let (lease, progress) = (self.request.lease, self.request.progress);
        // Those of a parent that was pulled are read here, once, before they are believed.
        let parents = parent.iter().flat_map(|parent| &parent.packs);
        let parents: Vec<Digest> = parents.map(|pack| pack.digest).collect();
        if let Err(error) = memory::check::admit(&parents, lease, &sharing, &|_| {}) {
            tracing::warn!("pages of the parent are stored again: {error}");
        }
        let packed = memory::packer::pack(&images, lease, &sharing, progress)?;
        for pack in packed.packs.iter().filter(|pack| pack.new) {
            self.new_bytes.fetch_add(pack.size, Ordering::Relaxed);
        }
        let packs = packed.packs.iter().map(|pack| Content {
            digest: pack.digest,
            size: pack.size,
        });
        let packs = packs.collect();
        Ok((self.count(packed.index), packs))
    }

    fn open(&self, file: &PartFile) -> Result<File> {
        folder::open(self.dir.as_fd(), &file.name)
    }
}

/// CRIU's images that go into their archive, sorted by name.
pub(super) fn small_images(manifest: &Manifest) -> Result<Vec<&PartFile>> {
    let part = manifest.need_part(PartKind::Processes)?;
    let mut files: Vec<_> = part
        .files
        .iter()
        .filter(|file| !is_pages(file.name.as_str()))
        .collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn read_manifest(dir: BorrowedFd) -> Result<Vec<u8>> {
    let name = FileName::new(MANIFEST_NAME)?;
    let mut bytes = Vec::new();
    folder::open(dir, &name)?
        .take(LIMITS.bytes as u64 + 1)
        .read_to_end(&mut bytes)
        .context(|| format!("read {MANIFEST_NAME}"))?;
    Ok(bytes)
}
