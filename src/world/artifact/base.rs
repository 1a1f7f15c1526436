//! The base image that a world carries along: its manifest, and what that names, as they are.
//!
//! In a world's manifest it is a list of blobs: the image's manifest, its config, and its
//! layers from the lowest on, each once. That the layers are those which `rootfs` stands on is
//! seen by their chain id, which is in `world.json`.

use std::collections::BTreeSet;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest};

use super::layout::Content;
use crate::digest::Digest;
use crate::json::{self, Limits};
use crate::store::{Document, MAX_DOCUMENT, Store};
use crate::{Error, ErrorKind, Result};

/// Most blobs of an image.
pub(super) const MOST_BLOBS: usize = 512;

const CONFIG: Limits = Limits {
    bytes: MAX_DOCUMENT,
    depth: 16,
    string: 1 << 20,
};

/// A base image in the store, to be carried along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseImage {
    /// Its manifest, its config, its layers.
    pub blobs: Vec<Content>,
    /// Bytes of these that the store did not have before.
    pub new_bytes: u64,
}

/// What the manifest of an image, of `manifest`'s digest, makes the image consist of.
///
/// [`ErrorKind::ForeignWorld`] where an image has more than can be carried.
pub fn parts_of(manifest: Content, document: &ImageManifest) -> Result<Vec<Content>> {
    let mut parts = vec![manifest];
    let mut seen = BTreeSet::from([manifest.digest]);
    for descriptor in std::iter::once(document.config()).chain(document.layers()) {
        let part = content(descriptor)?;
        if seen.insert(part.digest) {
            parts.push(part);
        }
    }
    match parts.len() <= MOST_BLOBS {
        true => Ok(parts),
        false => Err(Error::new(
            ErrorKind::ForeignWorld,
            format!("an image of more than {MOST_BLOBS} blobs cannot be carried along"),
        )),
    }
}

/// Names the layers of an image, given its config's bytes, as snapshots of them are named.
pub fn chain_id(config: &[u8]) -> Result<String> {
    json::check(config, &CONFIG)?;
    let config: ImageConfiguration = json::parse_checked(config)?;
    let mut chain = None;
    for diff in config.rootfs().diff_ids() {
        let diff: Digest = diff.parse()?;
        chain = Some(match chain {
            None => diff,
            Some(below) => Digest::of(format!("{below} {diff}").as_bytes()),
        });
    }
    match chain {
        Some(chain) => Ok(chain.to_string()),
        None => Err(corrupt("an image without layers")),
    }
}

/// Checks that what a world carries is one whole image, with the layers named `chain`.
pub(super) fn check(store: &Store, blobs: &[Content], chain: Option<&str>) -> Result<()> {
    let Some(manifest) = blobs.first() else {
        return Ok(());
    };
    let look = || {
        let document = store.read(&manifest.digest, MAX_DOCUMENT)?;
        let Document::Manifest(document) = Document::parse(&document)? else {
            return Err(corrupt("it begins with an index"));
        };
        if parts_of(*manifest, &document)? != blobs {
            return Err(corrupt("its manifest names other blobs than are carried"));
        }
        let config = document.config().digest().to_string().parse()?;
        match chain_id(&store.read(&config, MAX_DOCUMENT)?)? {
            found if Some(found.as_str()) == chain => Ok(()),
            found => Err(corrupt(format!(
                "its layers are {found}, and the world stands on {}",
                chain.unwrap_or("none")
            ))),
        }
    };
    look().map_err(|error: Error| error.within("the base image carried along"))
}

fn content(descriptor: &Descriptor) -> Result<Content> {
    Ok(Content {
        digest: descriptor.digest().to_string().parse()?,
        size: descriptor.size(),
    })
}

fn corrupt(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::CorruptWorld, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_named_as_their_snapshots() {
        let config = |diffs: &[&str]| {
            let config = serde_json::json!({
                "architecture": "amd64",
                "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": diffs},
            });
            chain_id(&serde_json::to_vec(&config).unwrap())
        };
        let (a, b) = (Digest::of(b"a").to_string(), Digest::of(b"b").to_string());
        assert_eq!(config(&[&a]).unwrap(), a);
        let both = Digest::of(format!("{a} {b}").as_bytes()).to_string();
        assert_eq!(config(&[&a, &b]).unwrap(), both);
        assert!(config(&[]).is_err());
        assert!(config(&["sha256:0"]).is_err());
    }
}
