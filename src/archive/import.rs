//! From a file, a directory or containerd's store to a world of the store.

use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};

use super::containerd;
use super::extract::{extract, must_have_room};
use super::layout::{Content, Layout};
use super::recognise::{Found, recognise};
use super::source::Source;
use super::tar_reader::{corrupt, unreadable};
use crate::containerd::Namespace;
use crate::digest::{Digest, on_all_cores};
use crate::error::IoContext;
use crate::store::{Document, Lease, Published, WorldName};
use crate::world::artifact::{self, Artifact, PackRequest, Parent, pack};
use crate::world::manifest::{MANIFEST_NAME, Manifest};
use crate::world::verify::verify_digests;
use crate::{Error, Result};

/// Where a world comes from.
pub enum Origin<'a> {
    /// A tar, or a world directory.
    Path(&'a Path),
    /// An image in containerd's store.
    Image(&'a Namespace<'a>, &'a str),
}

/// What [`import`] needs.
pub struct ImportRequest<'a> {
    /// Where the world comes from.
    pub origin: Origin<'a>,
    /// Of the store that it goes to.
    pub lease: &'a Lease,
    /// What to call it; by default what it was called, or its container's id.
    pub name: Option<&'a WorldName>,
    /// Told how many bytes were read since it was told last.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

/// A world that was imported.
pub struct Imported {
    /// What it came as: `checkpoint`, `oci`, `directory` or `containerd`.
    pub form: &'static str,
    /// What it is called.
    pub name: WorldName,
    /// Where it stands in the store.
    pub published: Published,
    /// What it consists of.
    pub artifact: Artifact,
    /// Bytes of blobs that the store did not have before.
    pub new_bytes: u64,
    /// The rescued directory that it was, which is gone now.
    pub removed: Option<PathBuf>,
}

/// Imports a world, whatever it comes as. Nothing is published unless all of it is there.
///
/// [`ErrorKind::ForeignWorld`](crate::ErrorKind::ForeignWorld) for what is none of ours,
/// [`ErrorKind::CorruptWorld`](crate::ErrorKind::CorruptWorld) for what is damaged or hostile.
pub fn import(request: &ImportRequest) -> Result<Imported> {
    match request.origin {
        Origin::Path(path) if path.is_dir() => directory(request, path),
        Origin::Path(path) => file(request, &Source::open(path)?),
        Origin::Image(namespace, name) => {
            let workspace = request.lease.store().workspace("import")?;
            let source = containerd::fetch(namespace, name, &workspace, request.progress)?;
            match recognise(&source)? {
                Found::World(manifest) => from_tar(request, &source, &manifest, "containerd"),
                Found::Layout(_) => Err(corrupt(format!("image {name}: a layout in a checkpoint"))),
            }
        }
    }
}

fn file(request: &ImportRequest, source: &Source) -> Result<Imported> {
    let layout = match recognise(source)? {
        Found::World(manifest) => return from_tar(request, source, &manifest, "checkpoint"),
        Found::Layout(layout) => layout,
    };
    let taken = match layout.content(source) {
        Ok(Content::World(digest, name)) => from_layout(request, source, &layout, digest, name),
        Ok(Content::Checkpoint(tar)) => from_image(request, source, &layout, &tar),
        Err(error) => Err(error),
    };
    taken.map_err(|error| error.within(source.name()))
}

/// What a file is, without importing it: `checkpoint`, `oci` or `containerd`. `name` is what
/// it is called in errors, which are those of [`import`].
pub fn form_of(file: File, name: String) -> Result<&'static str> {
    let source = Source::of(file, name)?;
    match recognise(&source)? {
        Found::World(_) => Ok("checkpoint"),
        Found::Layout(layout) => match layout.content(&source)? {
            Content::World(..) => Ok("oci"),
            Content::Checkpoint(_) => Ok("containerd"),
        },
    }
}

/// The tar of a world directory, or a checkpoint archive of one.
fn from_tar(
    request: &ImportRequest,
    source: &Source,
    manifest: &Manifest,
    form: &'static str,
) -> Result<Imported> {
    let name = name_of(request, manifest, None)?;
    let workspace = request.lease.store().workspace("import")?;
    let world = workspace.path().join("world");
    let lineage = extract(&mut source.tar()?, manifest, &world, request.progress)?;
    let parent = lineage.and_then(|lineage| lineage.parent(request.lease));
    let imported = pack_up(request, &world, parent, name, form)?;
    workspace.remove()?;
    Ok(imported)
}

/// A tar of containerd's image of a checkpoint.
fn from_image(
    request: &ImportRequest,
    source: &Source,
    layout: &Layout,
    tar: &Digest,
) -> Result<Imported> {
    layout.check(source, tar)?;
    let (offset, size) = layout.place(tar)?;
    let inner = source.member(offset, size, format!("the checkpoint {tar}"))?;
    match recognise(&inner)? {
        Found::World(manifest) => from_tar(request, &inner, &manifest, "containerd"),
        Found::Layout(_) => Err(corrupt("a layout inside a checkpoint")),
    }
}

fn directory(request: &ImportRequest, path: &Path) -> Result<Imported> {
    let store = request.lease.store();
    let inner = path.join("world");
    // What `world ls` tells of is the folder around it.
    let path = match path.join(MANIFEST_NAME).exists() || !inner.join(MANIFEST_NAME).exists() {
        true => path,
        false => &inner,
    };
    let rescued = store.rescued_around(path)?;
    let manifest = verify_digests(path)?;
    (request.progress)(manifest.size());
    let name = name_of(request, &manifest, None)?;
    let mut imported = pack_up(request, path, None, name, "directory")?;
    if let Some(workspace) = rescued {
        imported.removed = Some(workspace.path().to_owned());
        workspace.remove()?;
    }
    Ok(imported)
}

fn pack_up(
    request: &ImportRequest,
    world: &Path,
    parent: Option<Parent>,
    name: WorldName,
    form: &'static str,
) -> Result<Imported> {
    let packed = pack(&PackRequest {
        world,
        lease: request.lease,
        parent,
        share_all: false,
        base: None,
        name: Some(&name),
        progress: &|_| {},
    })?;
    Ok(Imported {
        form,
        name,
        published: packed.published,
        artifact: packed.artifact,
        new_bytes: packed.new_bytes,
        removed: None,
    })
}

/// A world as it was exported: the same manifest over the same blobs.
fn from_layout(
    request: &ImportRequest,
    source: &Source,
    layout: &Layout,
    digest: Digest,
    told: Option<String>,
) -> Result<Imported> {
    let lease = request.lease;
    let bytes = layout.document_bytes(source, &digest)?;
    let Document::Manifest(manifest) = Document::parse(&bytes)? else {
        return Err(corrupt("an index where a world's manifest should be"));
    };
    let artifact = Artifact::of(&manifest)?;
    let mut blobs = vec![artifact.config];
    blobs.extend(artifact.layers().map(|(_, content)| content));
    // All of it is known to be whole before the first byte is written.
    on_all_cores(&blobs, |blob| {
        let (_, size) = layout.place(&blob.digest)?;
        if size != blob.size {
            return Err(corrupt(format!(
                "the blob {} is {size} bytes and should be {}",
                blob.digest, blob.size
            )));
        }
        layout.check(source, &blob.digest)
    })?;
    let mut new_bytes = 0;
    for blob in &blobs {
        new_bytes += store_blob(request, source, layout, blob)?;
        (request.progress)(blob.size);
    }
    lease.put(&bytes)?;
    let (_, manifest) = artifact::load(lease.store(), &digest)?;
    must_have_room(&manifest, lease.store().path())?;
    artifact::verify(lease, &digest, &|_| {})?;
    let name = name_of(request, &manifest, told)?;
    let annotations = &artifact.annotations;
    let published = (lease.store()).publish(lease, &bytes, annotations, Some(&name))?;
    Ok(Imported {
        form: "oci",
        name,
        new_bytes: new_bytes + if published.new { published.size } else { 0 },
        published,
        artifact,
        removed: None,
    })
}

/// Returns how many bytes the store did not have before.
fn store_blob(
    request: &ImportRequest,
    source: &Source,
    layout: &Layout,
    blob: &artifact::Content,
) -> Result<u64> {
    if request.lease.hold(&blob.digest)? == Some(blob.size) {
        return Ok(0);
    }
    let (offset, size) = layout.place(&blob.digest)?;
    let mut bytes = BufReader::with_capacity(256 << 10, source.section(offset, size)?);
    let mut out = BufWriter::with_capacity(256 << 10, request.lease.write_blob()?);
    io::copy(&mut bytes, &mut out).map_err(|error| unreadable("the archive", error))?;
    let out = out
        .into_inner()
        .map_err(io::IntoInnerError::into_error)
        .context(|| "store a blob")?;
    let written = out.finish()?;
    match written.digest == blob.digest {
        true => Ok(if written.new { written.size } else { 0 }),
        false => Err(corrupt(format!(
            "{} changed while it was read",
            blob.digest
        ))),
    }
}

/// The name that was asked for, the one it had, or its container's.
fn name_of(
    request: &ImportRequest,
    manifest: &Manifest,
    told: Option<String>,
) -> Result<WorldName> {
    if let Some(name) = request.name {
        return Ok(name.clone());
    }
    if let Some(name) = told.and_then(|name| name.parse().ok()) {
        return Ok(name);
    }
    let id = manifest.container.id.to_ascii_lowercase();
    id.parse().map_err(|error: Error| {
        error.within(format!(
            "the world of container {} needs a NAME",
            id.escape_debug()
        ))
    })
}
