//! The JSON documents among the blobs: image manifests and image indexes.
//!
//! Untrusted: bounded before they are parsed, and taken for what their own
//! `mediaType` says only where the descriptor that led to them agrees.

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::layout::Store;
use crate::digest::Digest;
use crate::json::{self, Limits};
use crate::{Error, ErrorKind, Result};

/// Most bytes of a manifest or index, as registries take them.
pub const MAX_DOCUMENT: usize = 4 << 20;

const LIMITS: Limits = Limits {
    bytes: MAX_DOCUMENT,
    depth: 16,
    string: 1 << 20,
};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// A blob that names others.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "few exist at a time")]
pub enum Document {
    /// An image manifest: a world's, or a base image's.
    Manifest(ImageManifest),
    /// An image index.
    Index(ImageIndex),
}

/// One blob that a document names.
#[derive(Debug)]
pub(super) struct Child {
    pub digest: Digest,
    pub size: u64,
    /// Of a document; `None` for content.
    pub document: Option<MediaType>,
    /// Without it the document is of no use.
    pub required: bool,
}

/// What tells the two kinds apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    schema_version: u32,
    media_type: Option<MediaType>,
    layers: Option<IgnoredAny>,
    manifests: Option<IgnoredAny>,
}

impl Document {
    /// Parses the bytes of a manifest or index. [`ErrorKind::CorruptWorld`] where they are
    /// neither, or larger than [`MAX_DOCUMENT`].
    pub fn parse(bytes: &[u8]) -> Result<Document> {
        json::check(bytes, &LIMITS)?;
        let header: Header = json::parse_checked(bytes)?;
        if header.schema_version != 2 {
            let version = header.schema_version;
            return Err(corrupt(format!("schemaVersion is {version} and must be 2")));
        }
        let document = match (header.layers, header.manifests) {
            (Some(_), None) => Document::Manifest(json::parse_checked(bytes)?),
            (None, Some(_)) => Document::Index(json::parse_checked(bytes)?),
            _ => return Err(corrupt("is neither a manifest nor an index".into())),
        };
        match header.media_type {
            Some(told) if !document.can_be(&told) => Err(corrupt(format!(
                "calls itself {:?} and is {}",
                told.as_ref().chars().take(100).collect::<String>(),
                document.media_type()
            ))),
            _ => Ok(document),
        }
    }

    /// Whether a descriptor of this media type may lead to it.
    pub(super) fn can_be(&self, media_type: &MediaType) -> bool {
        let (oci, docker) = match self {
            Document::Manifest(_) => (MediaType::ImageManifest, DOCKER_MANIFEST),
            Document::Index(_) => (MediaType::ImageIndex, DOCKER_INDEX),
        };
        *media_type == oci || media_type.as_ref() == docker
    }

    /// Whether a media type is a document's.
    pub fn is_one(media_type: &MediaType) -> bool {
        matches!(media_type, MediaType::ImageManifest | MediaType::ImageIndex)
            || [DOCKER_MANIFEST, DOCKER_INDEX].contains(&media_type.as_ref())
    }

    /// Its own media type.
    pub fn media_type(&self) -> MediaType {
        let (told, usual) = match self {
            Document::Manifest(manifest) => (manifest.media_type(), MediaType::ImageManifest),
            Document::Index(index) => (index.media_type(), MediaType::ImageIndex),
        };
        told.clone().unwrap_or(usual)
    }

    /// What sort of artifact it is.
    pub fn artifact_type(&self) -> Option<&MediaType> {
        match self {
            Document::Manifest(manifest) => manifest.artifact_type().as_ref(),
            Document::Index(index) => index.artifact_type().as_ref(),
        }
    }

    /// The blobs it names, all digests checked to be file names.
    pub(super) fn children(&self) -> Result<Vec<Child>> {
        let (required, optional, subject): (Vec<_>, &[_], _) = match self {
            Document::Manifest(manifest) => {
                let config = std::iter::once(manifest.config());
                let all = config.chain(manifest.layers()).collect();
                (all, &[], manifest.subject())
            }
            // An index of many platforms may be here with one of them.
            Document::Index(index) => (vec![], index.manifests(), index.subject()),
        };
        let required = required.into_iter().map(|child| (child, true));
        let optional = optional.iter().chain(subject).map(|child| (child, false));
        required
            .chain(optional)
            .map(|(descriptor, required)| {
                let media_type = descriptor.media_type();
                let nested = !required && Self::is_one(media_type);
                Ok(Child {
                    digest: digest_of(descriptor)?,
                    size: descriptor.size(),
                    document: nested.then(|| media_type.clone()),
                    required,
                })
            })
            .collect()
    }
}

/// The digest of a descriptor, where it is one that can be in the store.
pub(super) fn digest_of(descriptor: &Descriptor) -> Result<Digest> {
    let text = descriptor.digest().as_ref();
    text.parse().map_err(|_| {
        corrupt(format!(
            "names {:?}: only SHA-256 digests are supported",
            text.chars().take(100).collect::<String>()
        ))
    })
}

/// A descriptor of a blob in the store.
pub(super) fn descriptor(media_type: MediaType, size: u64, digest: &Digest) -> Result<Descriptor> {
    let digest = digest
        .to_string()
        .parse::<oci_spec::image::Digest>()
        .map_err(|error| Error::caused_by(ErrorKind::Internal, "name a digest", error))?;
    Ok(Descriptor::new(media_type, size, digest))
}

impl Store {
    /// Reads a manifest or index and checks its digest.
    ///
    /// [`ErrorKind::NotFound`] where there is none, [`ErrorKind::CorruptWorld`] where it is
    /// damaged or something else.
    pub fn document(&self, digest: &Digest) -> Result<Document> {
        let bytes = self.read(digest, MAX_DOCUMENT)?;
        Document::parse(&bytes)
            .map_err(|error| self.blame(error.within(format!("the manifest {digest}"))))
    }

    /// Reads an image manifest and checks its digest. Errors as [`Store::document`].
    pub fn manifest(&self, digest: &Digest) -> Result<ImageManifest> {
        match self.document(digest)? {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) => Err(self.blame(corrupt(format!(
                "{digest} is an image index and not a manifest"
            )))),
        }
    }
}

fn corrupt(message: String) -> Error {
    Error::new(ErrorKind::CorruptWorld, message)
}
