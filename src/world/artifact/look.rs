//! A world of the store, looked into without making its directory.

use std::fs::File;

use super::layout::Artifact;
use super::pack::small_images;
use super::unpack::{check_packs, load};
use super::{images, rootfs};
use crate::Result;
use crate::criu::dumped::{self, Images};
use crate::digest::Digest;
use crate::memory::index::{Index, MAX_INDEX};
use crate::store::Store;
use crate::world::env::{EnvPart, LIMITS};
use crate::world::manifest::{Manifest, PartKind};
use crate::world::rootfs::layers::Expected;

/// Most bytes of images that are read at once: what they say takes about as much again.
const MOST_IMAGES: u64 = 128 << 20;

/// A world that the caller holds in a lease.
#[derive(Debug)]
pub struct OpenedWorld {
    /// Of its manifest.
    pub digest: Digest,
    /// What it consists of.
    pub artifact: Artifact,
    /// Its `world.json`.
    pub manifest: Manifest,
    store: Store,
}

/// The layers of a world's rootfs, opened, the lowest first.
#[derive(Debug)]
pub struct RootfsLayers {
    /// None where the world has no rootfs.
    pub layers: Vec<File>,
    /// What they have to give.
    pub expected: Expected,
}

impl OpenedWorld {
    /// Reads what the world consists of. Errors as [`load`]'s.
    pub fn open(store: &Store, digest: &Digest) -> Result<OpenedWorld> {
        let (artifact, manifest) = load(store, digest)?;
        Ok(OpenedWorld {
            digest: *digest,
            artifact,
            manifest,
            store: store.clone(),
        })
    }

    /// What the world is called in errors.
    pub fn name(&self) -> String {
        format!("world {}", self.digest)
    }

    /// The environment of its first process.
    pub fn environment(&self) -> Result<EnvPart> {
        let read = || {
            let bytes = self.store.read(&self.artifact.env.digest, LIMITS.bytes)?;
            EnvPart::parse(&bytes)
        };
        read().map_err(|error| error.within(self.name()))
    }

    /// Its processes, the root first.
    pub fn processes(&self) -> Result<Vec<dumped::Process>> {
        let read = || {
            let blob = self.store.open_blob(&self.artifact.images.digest)?;
            let files = small_images(&self.manifest)?;
            let images = images::collect(blob.file, &files, dumped::is_needed, MOST_IMAGES)?;
            dumped::processes(&Images(images))
        };
        read().map_err(|error| error.within(self.name()))
    }

    /// Where the pages of its memory are.
    pub fn pages(&self) -> Result<Index> {
        let read = || {
            let pages = self.store.read(&self.artifact.pages.digest, MAX_INDEX)?;
            let index = Index::parse(pages)?;
            check_packs(&self.artifact, &index)?;
            Ok(index)
        };
        read().map_err(|error: crate::Error| error.within(self.name()))
    }

    /// Its files.
    pub fn rootfs(&self) -> Result<RootfsLayers> {
        let open = |layer: &super::Content| Ok(self.store.open_blob(&layer.digest)?.file);
        let part = self.manifest.part(PartKind::Rootfs);
        let nothing = Expected {
            size: 0,
            sha256: Digest::default(),
        };
        let layers: Result<Vec<File>> = self.artifact.rootfs.iter().map(open).collect();
        Ok(RootfsLayers {
            layers: layers.map_err(|error| error.within(self.name()))?,
            expected: part.map_or(nothing, |part| rootfs::expected(&part.files[0])),
        })
    }
}
