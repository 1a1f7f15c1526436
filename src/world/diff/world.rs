//! Which worlds were compared.

use serde::Serialize;

use crate::digest::Digest;
use crate::world::artifact::OpenedWorld;

/// A world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorldView {
    /// Digest of its manifest.
    pub digest: Digest,
    /// Whose world it is.
    pub container: String,
    /// When it was made, RFC 3339.
    pub created: Option<String>,
    /// The image's name.
    pub image: Option<String>,
    /// The image's digest, where known.
    pub image_digest: Option<String>,
}

impl WorldView {
    pub(super) fn of(world: &OpenedWorld) -> WorldView {
        let manifest = &world.manifest;
        let image = manifest.image.as_ref();
        let format = time::format_description::well_known::Rfc3339;
        WorldView {
            digest: world.digest,
            container: manifest.container.id.clone(),
            created: manifest.created.format(&format).ok(),
            image: image.map(|image| image.name.clone()),
            image_digest: image.and_then(|image| image.digest.clone()),
        }
    }
}
