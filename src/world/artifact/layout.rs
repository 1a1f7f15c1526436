//! The manifest of a world: which blob is what.

use std::collections::BTreeMap;

use oci_spec::image::{
    Descriptor, DescriptorBuilder, ImageManifest, ImageManifestBuilder, MediaType, SCHEMA_VERSION,
    Sha256Digest,
};

use super::base::MOST_BLOBS;
use super::{ARTIFACT_TYPE, BASE, CONFIG, ENV, IMAGES, PACK, PAGES, ROOTFS, SPEC};
use crate::digest::Digest;
use crate::world::rootfs::layers::MOST_LAYERS;
use crate::{Error, ErrorKind, Result, json, store};

/// Most packs that a world refers to: a manifest of them has less than 4 MiB.
const MOST_PACKS: usize = 8192;

/// A blob of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Of its bytes.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
}

impl From<store::Written> for Content {
    fn from(written: store::Written) -> Content {
        Content {
            digest: written.digest,
            size: written.size,
        }
    }
}

/// What a world's manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// `world.json`.
    pub config: Content,
    /// The layers of the rootfs, the lowest first.
    pub rootfs: Vec<Content>,
    /// `spec.json`.
    pub spec: Content,
    /// `env.json`.
    pub env: Content,
    /// CRIU's images without those of memory.
    pub images: Content,
    /// The index of the pages of memory.
    pub pages: Content,
    /// The packs, in the order of the index's list.
    pub packs: Vec<Content>,
    /// The base image: its manifest, its config, its layers. Empty where it is not carried along.
    pub base: Vec<Content>,
    /// Sorted by key.
    pub annotations: BTreeMap<String, String>,
}

impl Artifact {
    /// Takes a manifest for a world's.
    ///
    /// [`ErrorKind::ForeignWorld`] where it is something else or of a newer form,
    /// [`ErrorKind::CorruptWorld`] where it is not as a world's must be.
    pub fn of(manifest: &ImageManifest) -> Result<Artifact> {
        let artifact_type = manifest.artifact_type().as_ref().map(MediaType::to_string);
        if artifact_type.as_deref() != Some(ARTIFACT_TYPE) {
            let found = artifact_type.unwrap_or_else(|| manifest.config().media_type().to_string());
            return Err(Error::new(
                ErrorKind::ForeignWorld,
                format!(
                    "it is no world ({ARTIFACT_TYPE}) but {}",
                    found.escape_debug()
                ),
            ));
        }
        if manifest.config().media_type().to_string() != CONFIG {
            return Err(corrupt("its config is not a world's"));
        }
        let mut parts = Parts::default();
        for layer in manifest.layers() {
            parts.take(layer)?;
        }
        let annotations = manifest.annotations().iter().flatten();
        parts.into_artifact(
            content(manifest.config())?,
            annotations
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        )
    }

    /// The manifest's bytes: keys sorted, so that the same world has the same digest.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let build = |error: oci_spec::OciSpecError| {
            Error::caused_by(ErrorKind::Internal, "make a manifest", error)
        };
        let mut layers = Vec::new();
        for (media_type, content) in self.layers() {
            layers.push(descriptor(media_type, content)?);
        }
        let manifest = ImageManifestBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageManifest)
            .artifact_type(MediaType::from(ARTIFACT_TYPE))
            .config(descriptor(CONFIG, self.config)?)
            .layers(layers)
            .annotations(
                self.annotations
                    .clone()
                    .into_iter()
                    .collect::<std::collections::HashMap<_, _>>(),
            )
            .build()
            .map_err(build)?;
        json::to_bytes(&manifest)
    }

    /// All blobs but the config, with their media types, in the manifest's order.
    pub fn layers(&self) -> impl Iterator<Item = (&'static str, Content)> {
        let single = [
            (SPEC, self.spec),
            (ENV, self.env),
            (IMAGES, self.images),
            (PAGES, self.pages),
        ];
        let rootfs = self.rootfs.iter().map(|layer| (ROOTFS, *layer));
        let packs = self.packs.iter().map(|pack| (PACK, *pack));
        let base = self.base.iter().map(|blob| (BASE, *blob));
        rootfs.chain(single).chain(packs).chain(base)
    }

    /// Size of all blobs together, in bytes.
    pub fn size(&self) -> u64 {
        let layers = self.layers().map(|(_, content)| content.size);
        layers.fold(self.config.size, u64::saturating_add)
    }
}

/// The layers of a manifest, sorted by what they are.
#[derive(Default)]
struct Parts {
    rootfs: Vec<Content>,
    spec: Option<Content>,
    env: Option<Content>,
    images: Option<Content>,
    pages: Option<Content>,
    packs: Vec<Content>,
    base: Vec<Content>,
}

impl Parts {
    fn take(&mut self, layer: &Descriptor) -> Result<()> {
        let media_type = layer.media_type().to_string();
        let content = content(layer)?;
        let slot = match media_type.as_str() {
            ROOTFS => {
                self.rootfs.push(content);
                return Ok(());
            }
            PACK => {
                self.packs.push(content);
                return Ok(());
            }
            BASE => {
                self.base.push(content);
                return Ok(());
            }
            SPEC => &mut self.spec,
            ENV => &mut self.env,
            IMAGES => &mut self.images,
            PAGES => &mut self.pages,
            other => {
                return Err(Error::new(
                    ErrorKind::ForeignWorld,
                    format!(
                        "it has a layer {}, which this worldshim {} does not know: install a newer one",
                        other.escape_debug(),
                        env!("CARGO_PKG_VERSION")
                    ),
                ));
            }
        };
        match slot.replace(content) {
            None => Ok(()),
            Some(_) => Err(corrupt(format!("it has two layers {media_type}"))),
        }
    }

    fn into_artifact(
        self,
        config: Content,
        annotations: BTreeMap<String, String>,
    ) -> Result<Artifact> {
        if self.rootfs.len() > MOST_LAYERS || self.packs.len() > MOST_PACKS {
            return Err(corrupt(format!(
                "it has {} rootfs layers and {} packs, {MOST_LAYERS} and {MOST_PACKS} are allowed",
                self.rootfs.len(),
                self.packs.len()
            )));
        }
        if self.base.len() > MOST_BLOBS {
            return Err(corrupt(format!(
                "its base image has {} blobs, {MOST_BLOBS} are allowed",
                self.base.len()
            )));
        }
        let need = |part: Option<Content>, what: &str| {
            part.ok_or_else(|| corrupt(format!("its layer {what} is missing")))
        };
        Ok(Artifact {
            config,
            rootfs: self.rootfs,
            spec: need(self.spec, SPEC)?,
            env: need(self.env, ENV)?,
            images: need(self.images, IMAGES)?,
            pages: need(self.pages, PAGES)?,
            packs: self.packs,
            base: self.base,
            annotations,
        })
    }
}

fn content(descriptor: &Descriptor) -> Result<Content> {
    Ok(Content {
        digest: descriptor.digest().to_string().parse()?,
        size: descriptor.size(),
    })
}

fn descriptor(media_type: &str, content: Content) -> Result<Descriptor> {
    let internal = |error: oci_spec::OciSpecError| {
        Error::caused_by(ErrorKind::Internal, "make a descriptor", error)
    };
    let hex = content.digest.to_string();
    let hex = hex.trim_start_matches("sha256:");
    DescriptorBuilder::default()
        .media_type(MediaType::from(media_type))
        .digest(hex.parse::<Sha256Digest>().map_err(internal)?)
        .size(content.size)
        .build()
        .map_err(internal)
}

fn corrupt(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::CorruptWorld, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(byte: u8) -> Content {
        Content {
            digest: Digest::of(&[byte]),
            size: u64::from(byte),
        }
    }

    fn artifact() -> Artifact {
        Artifact {
            config: content(1),
            rootfs: vec![content(2), content(3)],
            spec: content(4),
            env: content(5),
            images: content(6),
            pages: content(7),
            packs: vec![content(8), content(9)],
            base: vec![content(10), content(11)],
            annotations: [("b", "2"), ("a", "1")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        }
    }

    fn parsed(bytes: &[u8]) -> Result<Artifact> {
        Artifact::of(&serde_json::from_slice(bytes).unwrap())
    }

    fn edited(edit: impl FnOnce(&mut serde_json::Value)) -> Result<Artifact> {
        let mut value = serde_json::from_slice(&artifact().to_bytes().unwrap()).unwrap();
        edit(&mut value);
        parsed(&serde_json::to_vec(&value).unwrap())
    }

    #[test]
    fn a_manifest_comes_back() {
        let bytes = artifact().to_bytes().unwrap();
        assert_eq!(parsed(&bytes).unwrap(), artifact());
        assert_eq!(artifact().to_bytes().unwrap(), bytes);
        assert_eq!(artifact().size(), 66);
    }

    #[test]
    fn the_golden_manifest_is_read_and_written_back() {
        let golden = include_bytes!("../../../tests/golden/artifact-v1/manifest.json");
        assert_eq!(parsed(golden).unwrap(), artifact());
        assert_eq!(artifact().to_bytes().unwrap(), golden);
    }

    #[test]
    fn what_is_no_world_or_a_newer_one_is_foreign() {
        let kind = |result: Result<Artifact>| result.unwrap_err().kind();
        let image = edited(|m| m["artifactType"] = "application/x".into());
        assert_eq!(kind(image), ErrorKind::ForeignWorld);
        let newer = edited(|m| m["layers"][2]["mediaType"] = "application/y".into());
        assert_eq!(kind(newer), ErrorKind::ForeignWorld);
    }

    #[test]
    fn a_part_too_few_or_too_many_is_damage() {
        let kind = |result: Result<Artifact>| result.unwrap_err().kind();
        let twice = edited(|m| {
            let layer = m["layers"][2].clone();
            m["layers"].as_array_mut().unwrap().push(layer);
        });
        assert_eq!(kind(twice), ErrorKind::CorruptWorld);
        let missing = edited(|m| {
            m["layers"].as_array_mut().unwrap().remove(3);
        });
        assert_eq!(kind(missing), ErrorKind::CorruptWorld);
        let many = edited(|m| {
            let layer = m["layers"][0].clone();
            m["layers"].as_array_mut().unwrap().extend(vec![layer; 9]);
        });
        assert_eq!(kind(many), ErrorKind::CorruptWorld);
    }
}
