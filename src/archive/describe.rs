//! What a checkpoint archive says of a world to tools that cannot read worlds.

use std::fs::File;

use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use crate::world::identity::repository;
use crate::world::manifest::Manifest;
use crate::world::{rootfs, spec};
use crate::{Error, ErrorKind, Result, json as documents};

/// Where tools look for a container's name.
const NAME: &str = "io.kubernetes.cri.container-name";
/// What Go's zero time is in JSON.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// `config.dump`: whose checkpoint it is. When the container was made is not in a world; the
/// time is the world's.
pub(super) fn config_dump(manifest: &Manifest) -> Result<Vec<u8>> {
    let created = rfc3339(manifest)?;
    let mut config = json!({
        "id": manifest.container.id,
        "name": manifest.container.id,
        "runtime": manifest.container.runtime,
        "createdTime": created,
        "checkpointedTime": created,
        "restoredTime": NEVER,
        "restored": false,
    });
    if let Some(image) = &manifest.image {
        config["rootfsImageName"] = image.name.as_str().into();
        if let Some(digest) = &image.digest {
            config["rootfsImage"] = digest.as_str().into();
            config["rootfsImageRef"] = pinned(&image.name, digest).into();
        }
    }
    documents::to_bytes(&config)
}

/// `spec.dump`: the spec, redacted as it is in the world, with a name where it has none.
pub(super) fn spec_dump(manifest: &Manifest, spec: &[u8]) -> Result<Vec<u8>> {
    let mut spec: Value = documents::parse(spec, &spec::LIMITS)?;
    let Some(fields) = spec.as_object_mut() else {
        let text = format!("{} is no object", spec::FILE_NAME);
        return Err(Error::new(ErrorKind::CorruptWorld, text));
    };
    let annotations = fields.entry("annotations").or_insert_with(|| json!({}));
    if annotations.is_null() {
        *annotations = json!({});
    }
    if let Some(annotations) = annotations.as_object_mut() {
        let name = || manifest.container.id.as_str().into();
        annotations.entry(NAME).or_insert_with(name);
    }
    documents::to_bytes(&spec)
}

/// `status.dump`: the container's status in CRI's words; 1 is "running".
pub(super) fn status_dump(manifest: &Manifest) -> Result<Vec<u8>> {
    let nanos = i64::try_from(manifest.created.unix_timestamp_nanos()).unwrap_or_default();
    let mut status = json!({
        "id": manifest.container.id,
        "metadata": {"name": manifest.container.id},
        "state": 1,
        "created_at": nanos,
    });
    if let Some(image) = &manifest.image {
        status["image"] = json!({"image": image.name});
        if let Some(digest) = &image.digest {
            status["image_ref"] = pinned(&image.name, digest).into();
        }
    }
    documents::to_bytes(&status)
}

/// `deleted.files`: which files of the image are gone; `None` where all are there.
pub(super) fn deleted_files(rootfs: &File) -> Result<Option<Vec<u8>>> {
    let deleted = rootfs::deleted(rootfs)?;
    let names: Vec<String> = deleted
        .iter()
        .map(|path| String::from_utf8_lossy(path).into_owned())
        .collect();
    match names.is_empty() {
        true => Ok(None),
        false => documents::to_bytes(&names).map(Some),
    }
}

/// `NAME@DIGEST`, without a tag.
fn pinned(name: &str, digest: &str) -> String {
    format!("{}@{digest}", repository(name))
}

fn rfc3339(manifest: &Manifest) -> Result<String> {
    manifest
        .created
        .format(&Rfc3339)
        .map_err(|error| Error::caused_by(ErrorKind::Internal, "write a time", error))
}
