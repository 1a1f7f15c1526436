//! From a world of the store to one file.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::checkpoint::{self, Hashed};
use super::layout::{INDEX, LAYOUT, REF_NAME};
use super::lineage::Lineage;
use super::output::Output;
use crate::digest::{Digest, Hashing};
use crate::memory::PAGE_SIZE;
use crate::store::{Lease, MAX_DOCUMENT, WorldName};
use crate::world::artifact::{self, ARTIFACT_TYPE, Artifact, Content};
use crate::{Error, ErrorKind, Result, json as documents};

const IMAGE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const IMAGE_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// A checkpoint archive, as podman, CRI and checkpointctl know it.
    Checkpoint,
    /// A tar of an OCI image layout, with the same digests as in the store.
    Oci,
}

/// How to pack a checkpoint archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Compression {
    /// Zstandard.
    Zstd,
    /// gzip.
    Gzip,
    /// Not at all.
    None,
}

/// What [`export`] needs.
pub struct ExportRequest<'a> {
    /// Holds the world.
    pub lease: &'a Lease,
    /// The world.
    pub world: Digest,
    /// What a layout calls it.
    pub name: Option<&'a WorldName>,
    /// Where it goes.
    pub file: &'a Path,
    /// What to write.
    pub form: Form,
    /// Of a checkpoint archive. A layout's blobs are compressed already.
    pub compression: Compression,
    /// Replace a file that is there.
    pub force: bool,
    /// Told how many bytes were read since it was told last.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// Of the file, in bytes.
    pub size: u64,
}

/// Writes a world to a file, which is whole and durable when this returns, or not there.
///
/// [`ErrorKind::AlreadyExists`] where the file is there, [`ErrorKind::CorruptWorld`] where the
/// world is damaged.
pub fn export(request: &ExportRequest) -> Result<Exported> {
    let world = request.world;
    let write = || match request.form {
        Form::Checkpoint => as_checkpoint(request),
        Form::Oci => as_layout(request),
    };
    let size = write().map_err(|error: Error| match error.kind() {
        ErrorKind::CorruptWorld => error.within(format!("world {world}")),
        _ => error,
    })?;
    Ok(Exported { size })
}

fn as_checkpoint(request: &ExportRequest) -> Result<u64> {
    let mut out = Output::create(request.file, request.compression, request.force)?;
    let store = request.lease.store();
    let (artifact, _) = artifact::load(store, &request.world)?;
    let lineage = Lineage::of(store, &artifact);
    let workspace = store.workspace("export")?;
    let world = workspace.path().join("world");
    let progress = request.progress;
    let manifest = artifact::unpack(request.lease, &request.world, &world, &|pages| {
        progress(pages * PAGE_SIZE as u64);
    })?;
    checkpoint::write(&mut out, &world, &manifest, lineage, progress)?;
    workspace.remove()?;
    out.finish()
}

fn as_layout(request: &ExportRequest) -> Result<u64> {
    let store = request.lease.store();
    let (artifact, _) = artifact::load(store, &request.world)?;
    let manifest = store.read(&request.world, MAX_DOCUMENT)?;
    let index = index(request, &artifact, manifest.len())?;
    let mut out = Output::create(request.file, Compression::None, request.force)?;
    out.bytes(
        LAYOUT,
        &documents::to_bytes(&json!({"imageLayoutVersion": "1.0.0"}))?,
    )?;
    out.bytes(INDEX, &index)?;
    out.folder("blobs")?;
    out.folder("blobs/sha256")?;
    out.bytes(&place(&request.world), &manifest)?;
    // A blob that serves twice stands there once.
    let mut blobs: BTreeMap<Digest, Content> = BTreeMap::new();
    blobs.insert(artifact.config.digest, artifact.config);
    for (_, content) in artifact.layers() {
        blobs.insert(content.digest, content);
    }
    for content in blobs.values() {
        copy(request, &mut out, content)?;
    }
    out.finish()
}

fn copy(request: &ExportRequest, out: &mut Output, content: &Content) -> Result<()> {
    let digest = content.digest;
    let mut data = Hashed {
        data: request.lease.store().open_blob(&digest)?.file,
        hashing: Hashing::default(),
        progress: request.progress,
    };
    out.file(&place(&digest), content.size, &mut data)?;
    match data.hashing.finish() == (digest, content.size) {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::CorruptWorld,
            format!("the blob {digest} is damaged"),
        )),
    }
}

fn index(request: &ExportRequest, artifact: &Artifact, size: usize) -> Result<Vec<u8>> {
    let mut annotations = artifact.annotations.clone();
    if let Some(name) = request.name {
        annotations.insert(REF_NAME.to_owned(), name.to_string());
    }
    let index: Value = json!({
        "schemaVersion": 2,
        "mediaType": IMAGE_INDEX,
        "manifests": [{
            "mediaType": IMAGE_MANIFEST,
            "artifactType": ARTIFACT_TYPE,
            "digest": request.world,
            "size": size,
            "annotations": annotations,
        }],
    });
    documents::to_bytes(&index)
}

fn place(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
