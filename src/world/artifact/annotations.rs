//! What a world's manifest, and its entry in an index, tell those who cannot
//! read worlds: the annotations of OCI and of checkpoint tools, and the lineage.

use std::collections::BTreeMap;

use oci_spec::image::{
    ANNOTATION_BASE_IMAGE_DIGEST, ANNOTATION_BASE_IMAGE_NAME, ANNOTATION_CREATED,
};
use time::format_description::well_known::Rfc3339;

use super::layout::Artifact;
use crate::digest::Digest;
use crate::world::host::CgroupMode;
use crate::world::manifest::Manifest;

/// The world that this one follows: the digest of its manifest.
pub const LINEAGE: &str = "dev.worldshim.parent";

/// What a world has in common with all that descend from the same first one: the digest of
/// that one's config.
pub const ORIGIN: &str = "dev.worldshim.origin";

/// The id of its container, among the annotations of checkpoint tools.
const CONTAINER: &str = "container.name";

/// Whether the world of an index's entry may be one of a container of this id: other tools
/// leave the annotations out.
pub(super) fn may_be_of(container: &str, annotations: &BTreeMap<String, String>) -> bool {
    let told = annotations.get(&format!("org.criu.checkpoint.{CONTAINER}"));
    told.is_none_or(|told| told == container)
}

/// What a world's annotations say: nothing but what is in `world.json`, and the parent.
pub(super) fn annotations(
    manifest: &Manifest,
    origin: Digest,
    parent: Option<Digest>,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut say = |key: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            all.insert(key.to_owned(), value);
        }
    };
    say(ANNOTATION_CREATED, manifest.created.format(&Rfc3339).ok());
    say(ORIGIN, Some(origin.to_string()));
    say(LINEAGE, parent.map(|parent| parent.to_string()));
    if let Some(image) = &manifest.image {
        say(ANNOTATION_BASE_IMAGE_NAME, Some(image.name.clone()));
        say(ANNOTATION_BASE_IMAGE_DIGEST, image.digest.clone());
        say(
            "org.criu.checkpoint.rootfsImageName",
            Some(image.name.clone()),
        );
        say("org.criu.checkpoint.rootfsImageID", image.digest.clone());
    }
    let host = &manifest.host;
    let container = &manifest.container;
    let cgroup = match host.cgroup {
        CgroupMode::V1 | CgroupMode::Hybrid => "v1",
        CgroupMode::V2 => "v2",
    };
    let cgroup = cgroup.to_owned();
    for (key, value) in [
        (CONTAINER, Some(&container.id)),
        ("engine.name", Some(&"worldshim".to_owned())),
        ("engine.version", Some(&host.worldshim)),
        ("criu.version", host.criu.as_ref()),
        ("host.arch", Some(&host.arch)),
        ("host.kernel", Some(&host.kernel)),
        ("cgroups.version", Some(&cgroup)),
        ("runtime.name", Some(&container.runtime)),
    ] {
        say(&format!("org.criu.checkpoint.{key}"), value.cloned());
    }
    all
}

/// The origin of a world.
pub fn origin_of(artifact: &Artifact) -> Digest {
    let told = artifact.annotations.get(ORIGIN);
    let origin = told.and_then(|origin| origin.parse().ok());
    origin.unwrap_or(artifact.config.digest)
}

/// The parent that annotations tell of.
pub fn parent_of(annotations: &BTreeMap<String, String>) -> Option<Digest> {
    annotations.get(LINEAGE)?.parse().ok()
}
