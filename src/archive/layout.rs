//! A tar of an OCI image layout: its index, and where in the file each blob is.
//!
//! ```text
//! oci-layout
//! index.json            names the world, or containerd's image of a checkpoint
//! blobs/sha256/HEX
//! ```

use std::collections::BTreeMap;
use std::io;

use oci_spec::image::Descriptor;

use super::containerd::checkpoint_of;
use super::source::Source;
use super::tar_reader::{corrupt, unreadable};
use crate::digest::{Digest, Hashing};
use crate::store::{Document, MAX_DOCUMENT};
use crate::world::artifact::{ARTIFACT_TYPE, Artifact};
use crate::{Error, ErrorKind, Result};

pub(super) const LAYOUT: &str = "oci-layout";
pub(super) const INDEX: &str = "index.json";
/// How an index calls what it names.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Indexes inside one another.
const MOST_DEPTH: usize = 4;
/// Most entries of indexes that are looked at.
const MOST_ENTRIES: usize = 256;

/// An image layout in a plain tar.
pub(super) struct Layout {
    index: Document,
    blobs: BTreeMap<Digest, (u64, u64)>,
}

/// What a layout is imported for.
pub(super) enum Content {
    /// A world's manifest, and its name.
    World(Digest, Option<String>),
    /// The tar of a world directory in an image made by `ctr container checkpoint`.
    Checkpoint(Digest),
}

impl Layout {
    pub fn new(index: Vec<u8>, blobs: BTreeMap<Digest, (u64, u64)>) -> Result<Layout> {
        let index = Document::parse(&index).map_err(|error| error.within(INDEX))?;
        Ok(Layout { index, blobs })
    }

    /// Finds the one world in it.
    pub fn content(&self, source: &Source) -> Result<Content> {
        let Document::Index(index) = &self.index else {
            return Err(corrupt(format!("{INDEX} is no index")));
        };
        let mut found = Vec::new();
        let mut artifacts = Vec::new();
        let mut todo: Vec<(Descriptor, usize)> =
            index.manifests().iter().map(|d| (d.clone(), 1)).collect();
        let mut looked_at = 0;
        while let Some((descriptor, depth)) = todo.pop() {
            looked_at += 1;
            if looked_at > MOST_ENTRIES || depth > MOST_DEPTH {
                return Err(corrupt("its indexes name too much"));
            }
            let digest: Digest = descriptor.digest().to_string().parse()?;
            if !Document::is_one(descriptor.media_type()) {
                continue;
            }
            match self.document(source, &digest)? {
                Document::Index(inner) => match checkpoint_of(&inner)? {
                    Some(tar) => found.push(Content::Checkpoint(tar)),
                    None => {
                        let inner = inner.manifests().iter();
                        todo.extend(inner.map(|d| (d.clone(), depth + 1)));
                    }
                },
                Document::Manifest(manifest) => match Artifact::of(&manifest) {
                    Ok(_) => found.push(Content::World(digest, name_of(&descriptor))),
                    Err(error) => artifacts.push(error),
                },
            }
        }
        match (found.len(), found.pop(), artifacts.pop()) {
            (1, Some(content), _) => Ok(content),
            (0, _, Some(error)) => Err(error),
            (0, ..) => Err(Error::new(
                ErrorKind::ForeignWorld,
                format!(
                    "an OCI layout without a world ({ARTIFACT_TYPE}) or a checkpoint by containerd"
                ),
            )),
            (many, ..) => Err(Error::new(
                ErrorKind::InvalidInput,
                format!("an OCI layout with {many} worlds: copy the one you mean with skopeo"),
            )),
        }
    }

    /// Where a blob is: offset and size in bytes.
    pub fn place(&self, digest: &Digest) -> Result<(u64, u64)> {
        self.blobs.get(digest).copied().ok_or_else(|| {
            corrupt(format!(
                "the blob {digest} is missing: fetch or export it again"
            ))
        })
    }

    /// Reads a blob that is a document, and checks its digest.
    pub fn document_bytes(&self, source: &Source, digest: &Digest) -> Result<Vec<u8>> {
        let (offset, size) = self.place(digest)?;
        let bytes = source.read(offset, size, MAX_DOCUMENT)?;
        match Digest::of(&bytes) == *digest {
            true => Ok(bytes),
            false => Err(damaged(digest)),
        }
    }

    fn document(&self, source: &Source, digest: &Digest) -> Result<Document> {
        Document::parse(&self.document_bytes(source, digest)?)
            .map_err(|error| error.within(format!("the manifest {digest}")))
    }

    /// Reads a blob to its end, to see whether its digest fits.
    pub fn check(&self, source: &Source, digest: &Digest) -> Result<()> {
        let (offset, size) = self.place(digest)?;
        let mut hashed = HashingWriter::default();
        let section = source.section(offset, size)?;
        let mut buffer = io::BufReader::with_capacity(256 << 10, section);
        io::copy(&mut buffer, &mut hashed)
            .map_err(|error| unreadable(&format!("the blob {digest}"), error))?;
        match hashed.0.finish() == (*digest, size) {
            true => Ok(()),
            false => Err(damaged(digest)),
        }
    }
}

/// Keeps nothing but the digest.
#[derive(Default)]
struct HashingWriter(Hashing);

impl io::Write for HashingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn damaged(digest: &Digest) -> Error {
    corrupt(format!(
        "the blob {digest} is damaged: fetch or export it again"
    ))
}

fn name_of(descriptor: &Descriptor) -> Option<String> {
    let annotations = descriptor.annotations().as_ref()?;
    annotations.get(REF_NAME).cloned()
}
