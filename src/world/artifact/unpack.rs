//! From a world of the store to its directory.

use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

use super::layout::{Artifact, Content};
use super::pack::small_images;
use super::{base, images, joined, lazy, rootfs};
use crate::digest::Digest;
use crate::error::IoContext;
use crate::memory::{self, index::Index, index::MAX_INDEX};
use crate::store::{Lease, Store};
use crate::world::directory::WorldDirWriter;
use crate::world::manifest::{LIMITS, Manifest, PartKind};
use crate::world::rootfs::layers;
use crate::world::verify::Verified;
use crate::{Error, ErrorKind, Result};

/// The largest `spec.json` and `env.json`, in bytes.
const SMALL: usize = 64 << 20;

/// Reads what a world of the store consists of and what is said of it.
///
/// [`ErrorKind::NotFound`] where it is not there, [`ErrorKind::ForeignWorld`] where it is no
/// world, [`ErrorKind::CorruptWorld`] where it is damaged.
pub fn load(store: &Store, digest: &Digest) -> Result<(Artifact, Manifest)> {
    let read = || {
        let artifact = Artifact::of(&store.manifest(digest)?)?;
        let config = store.read(&artifact.config.digest, LIMITS.bytes)?;
        let manifest = Manifest::parse(&config)?;
        check_fit(&artifact, &manifest)?;
        let layers = manifest.base.as_ref();
        let chain = layers.and_then(|layers| layers.chain_id.as_deref());
        base::check(store, &artifact.base, chain)?;
        Ok((artifact, manifest))
    };
    read().map_err(|error: Error| error.within(format!("world {digest}")))
}

/// The parts that `world.json` lists are those that the manifest has blobs for.
fn check_fit(artifact: &Artifact, manifest: &Manifest) -> Result<()> {
    let has_rootfs = manifest.part(PartKind::Rootfs).is_some();
    if has_rootfs == artifact.rootfs.is_empty() {
        let text = "its rootfs layers do not go with its world.json";
        return Err(Error::new(ErrorKind::CorruptWorld, text));
    }
    for (kind, content) in [
        (PartKind::Spec, artifact.spec),
        (PartKind::Env, artifact.env),
    ] {
        let file = &manifest.need_part(kind)?.files[0];
        if (file.sha256, file.size) != (content.digest, content.size) {
            let text = format!("its {} does not go with its world.json", file.name);
            return Err(Error::new(ErrorKind::CorruptWorld, text));
        }
    }
    Ok(())
}

/// Makes the directory of a world, which `lease` must hold, at `path`: new, or empty.
///
/// Whatever is wrong with the world makes one error, and nothing of the directory stays.
/// The pages' files are checked page by page; that their digests are those of `world.json`
/// is left to whoever [verifies](crate::world::verify) the directory, which every restore does.
pub fn unpack(
    lease: &Lease,
    digest: &Digest,
    path: &Path,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Manifest> {
    let (artifact, manifest) = load(lease.store(), digest)?;
    let unpacking = Unpacking {
        lease,
        artifact: &artifact,
        manifest: &manifest,
        out: WorldDirWriter::create(path)?,
    };
    unpacking
        .run(progress)
        .map_err(|error| error.within(format!("world {digest}")))?;
    Ok(manifest)
}

/// As [`unpack`], for siblings that have nothing of each other: pages that no child is to see
/// (`MADV_WIPEONFORK`) are zero. Where memory is to come lazily, so are all pages that CRIU
/// leaves to a page server, which makes the files of memory sparse.
///
/// Also returns what [`verify_again`](crate::world::verify::verify_again) must know in order
/// not to miss those pages. It says of the directory only that it is as it was made.
pub fn unpack_for_fork(
    lease: &Lease,
    digest: &Digest,
    path: &Path,
    lazily: bool,
) -> Result<(Manifest, Verified)> {
    let (artifact, manifest) = load(lease.store(), digest)?;
    let unpacking = Unpacking {
        lease,
        artifact: &artifact,
        manifest: &manifest,
        out: WorldDirWriter::create(path)?,
    };
    let verified = unpacking
        .run_for_fork(lazily)
        .map_err(|error| error.within(format!("world {digest}")))?;
    Ok((manifest, verified))
}

struct Unpacking<'a> {
    lease: &'a Lease,
    artifact: &'a Artifact,
    manifest: &'a Manifest,
    out: WorldDirWriter,
}

impl Unpacking<'_> {
    fn run(self, progress: &(dyn Fn(u64) + Sync)) -> Result<()> {
        self.beside(|| self.memory(progress))?;
        self.out.commit(self.manifest, false)
    }

    fn run_for_fork(self, lazily: bool) -> Result<Verified> {
        self.beside(|| {
            let memory = lazy::of(self.lease, self.artifact, self.manifest)?;
            let eager = memory.eager_parts(lazily)?;
            let out = self.out.dir();
            memory::unpacker::unpack_some(&memory.index, self.lease, out, &eager)
        })?;
        let dir = self.out.dir().try_clone_to_owned();
        let dir = dir.context(|| "duplicate a descriptor")?;
        self.out.commit(self.manifest, false)?;
        Verified::as_made(dir.as_fd(), self.manifest)
    }

    /// Makes all but the memory, and beside it what `memory` makes.
    fn beside(&self, memory: impl FnOnce() -> Result<()>) -> Result<()> {
        std::thread::scope(|scope| {
            let files = scope.spawn(|| {
                self.small(PartKind::Spec, self.artifact.spec)?;
                self.small(PartKind::Env, self.artifact.env)?;
                self.images()?;
                self.rootfs()
            });
            memory()?;
            joined(files.join())
        })
    }

    fn small(&self, kind: PartKind, content: Content) -> Result<()> {
        let file = &self.manifest.need_part(kind)?.files[0];
        let bytes = self.lease.store().read(&content.digest, SMALL)?;
        self.out.write(file.name.as_str(), &bytes)?;
        Ok(())
    }

    fn images(&self) -> Result<()> {
        let blob = self.lease.store().open_blob(&self.artifact.images.digest)?;
        images::read(blob.file, &small_images(self.manifest)?, &self.out)
    }

    fn rootfs(&self) -> Result<()> {
        let Some(part) = self.manifest.part(PartKind::Rootfs) else {
            return Ok(());
        };
        let file = &part.files[0];
        let mut layers = Vec::with_capacity(self.artifact.rootfs.len());
        for layer in &self.artifact.rootfs {
            layers.push(self.lease.store().open_blob(&layer.digest)?.file);
        }
        let mut out = self.out.copy_of(file)?;
        layers::merge(&mut layers, &rootfs::expected(file), &mut out)?;
        out.flush().context(|| format!("write {}", file.name))
    }

    fn memory(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<()> {
        let bytes = self
            .lease
            .store()
            .read(&self.artifact.pages.digest, MAX_INDEX)?;
        let index = Index::parse(bytes)?;
        check_packs(self.artifact, &index)?;
        memory::unpacker::unpack(&index, self.lease, self.out.dir().as_fd(), progress)
    }
}

/// The index refers to the packs that the manifest lists, which the lease holds, and no others.
pub(super) fn check_packs(artifact: &Artifact, index: &Index) -> Result<()> {
    let listed = artifact.packs.iter().map(|pack| pack.digest);
    match index.packs().iter().map(|pack| pack.digest).eq(listed) {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::CorruptWorld,
            "its pages are in other packs than its manifest lists",
        )),
    }
}
