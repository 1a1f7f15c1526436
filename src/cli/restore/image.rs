//! The image that a world stands on: there already, carried along, or to be pulled.

use crate::cli::progress::Progress;
use crate::containerd::Namespace;
use crate::error::{Error, ErrorKind, Result};
use crate::store::Store;
use crate::world::artifact::Artifact;
use crate::world::identity::repository;
use crate::world::manifest::{BaseLayers, ImageIdentity, Manifest};

/// Where containerd gets an image's layers from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Source {
    /// It has them.
    Here,
    /// The world has the image.
    Carried,
    /// A registry has it.
    Registry,
}

/// The image under a container that is to be.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Image {
    pub source: Source,
    /// What containerd calls it; empty where nobody knows.
    pub name: String,
}

/// Finds out where the layers named `parent` are to come from.
pub(in crate::cli) fn find(
    namespace: &Namespace,
    base: &BaseLayers,
    parent: &str,
    artifact: &Artifact,
    manifest: &Manifest,
) -> Result<Image> {
    let identity = manifest.image.as_ref();
    let repository = identity.map(|image| repository(&image.name));
    let carried = (artifact.base.first().zip(repository))
        .map(|(manifest, repository)| format!("{repository}@{}", manifest.digest));
    let pinned = identity.and_then(pinned);
    if namespace.has_snapshot(&base.snapshotter, parent)? {
        let name = name_here(namespace, identity, [carried, pinned])?;
        let source = Source::Here;
        return Ok(Image { source, name });
    }
    let (source, name) = match (carried, pinned) {
        (Some(name), _) => (Source::Carried, name),
        (None, Some(name)) => (Source::Registry, name),
        (None, None) => {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "the layers {parent} are not in containerd's {}, and the world does not say \
                     by which digest to pull them",
                    base.snapshotter
                ),
            ));
        }
    };
    Ok(Image { source, name })
}

/// `NAME@DIGEST`, without a tag.
fn pinned(image: &ImageIdentity) -> Option<String> {
    let digest = image.digest.as_ref()?;
    Some(format!("{}@{digest}", repository(&image.name)))
}

/// The image's own name, if it still means that image; else one that says which it is.
fn name_here(
    namespace: &Namespace,
    identity: Option<&ImageIdentity>,
    others: [Option<String>; 2],
) -> Result<String> {
    let Some(identity) = identity else {
        return Ok(String::new());
    };
    let found = namespace.image(&identity.name)?;
    let same = |digest: &String| found.as_ref().is_none_or(|found| found.digest == *digest);
    if found.is_some() && identity.digest.as_ref().is_none_or(same) {
        return Ok(identity.name.clone());
    }
    for name in others.into_iter().flatten() {
        if namespace.image(&name)?.is_some() {
            return Ok(name);
        }
    }
    Ok(identity.name.clone())
}

impl Image {
    /// Brings its layers to containerd, if they are not there.
    pub fn provide(
        &self,
        namespace: &Namespace,
        store: &Store,
        artifact: &Artifact,
        base: &BaseLayers,
        parent: &str,
    ) -> Result<()> {
        let name = &self.name;
        match self.source {
            Source::Here => return Ok(()),
            Source::Carried => {
                let blobs = &artifact.base;
                let bar = Progress::of_bytes("image", blobs.iter().map(|blob| blob.size).sum());
                let (snapshotter, tell) = (&base.snapshotter, |bytes| bar.add(bytes));
                namespace.import_image(store, repository(name), blobs, snapshotter, &tell)?;
            }
            Source::Registry => {
                let _waiting = Progress::waiting(&format!("pull {name}"));
                namespace.pull(name, &base.snapshotter)?;
            }
        }
        match namespace.has_snapshot(&base.snapshotter, parent)? {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "containerd has {name} now, but its layers are not those that the world \
                     stands on ({parent})"
                ),
            )),
        }
    }
}
