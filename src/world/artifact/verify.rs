//! Whether a world of the store can be restored: every byte of it is read.

use serde::Serialize;

use super::layout::Artifact;
use super::pack::small_images;
use super::unpack::{check_packs, load};
use crate::criu::images as criu_images;
use crate::digest::{Digest, hash_file, on_all_cores};
use crate::memory::{self, index::Index, index::MAX_INDEX};
use crate::store::Lease;
use crate::world::manifest::Manifest;
use crate::{Error, ErrorKind, Result};

/// What was found whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyReport {
    /// Blobs whose digests fit.
    pub blobs: u64,
    /// Their size together, in bytes.
    pub bytes: u64,
    /// Pages of memory, those of zeros among them.
    pub pages: u64,
    /// CRIU's images that can be decoded.
    pub images: u64,
}

/// Reads a world, which `lease` must hold, in full: the digest of every blob, every page of
/// every pack, every entry of the index, every image of CRIU's, and every file of its directory,
/// which is made in a workspace of the store for that.
///
/// [`ErrorKind::CorruptWorld`] with the first thing that is wrong.
pub fn verify(
    lease: &Lease,
    digest: &Digest,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<VerifyReport> {
    let read = || {
        let (artifact, manifest) = load(lease.store(), digest)?;
        let mut report = blobs(lease, &artifact)?;
        report.pages = memory(lease, &artifact, progress)?;
        report.images = directory(lease, digest, &manifest)?;
        Ok(report)
    };
    read().map_err(|error: Error| error.within(format!("world {digest}")))
}

fn blobs(lease: &Lease, artifact: &Artifact) -> Result<VerifyReport> {
    let mut all = vec![artifact.config];
    all.extend(artifact.layers().map(|(_, content)| content));
    on_all_cores(&all, |content| {
        let blob = lease.store().open_blob(&content.digest)?;
        match hash_file(&blob.file, content.digest)? == (content.digest, content.size) {
            true => Ok(()),
            false => {
                let text = format!("blob {} is damaged", content.digest);
                Err(Error::new(ErrorKind::CorruptWorld, text))
            }
        }
    })?;
    Ok(VerifyReport {
        blobs: all.len() as u64 + 1,
        bytes: artifact.size(),
        ..VerifyReport::default()
    })
}

fn memory(lease: &Lease, artifact: &Artifact, progress: &(dyn Fn(u64) + Sync)) -> Result<u64> {
    let index = Index::parse(lease.store().read(&artifact.pages.digest, MAX_INDEX)?)?;
    check_packs(artifact, &index)?;
    memory::check::verify(&index, lease.store(), progress)?;
    Ok(index.files().iter().map(|file| file.pages).sum())
}

/// Makes the directory and compares it with `world.json`. Returns the number of CRIU's images.
fn directory(lease: &Lease, digest: &Digest, manifest: &Manifest) -> Result<u64> {
    let workspace = lease.store().workspace("verify")?;
    let world = workspace.path().join("world");
    super::unpack(lease, digest, &world, &|_| {})?;
    crate::world::verify::verify_digests(&world)?;
    let images = small_images(manifest)?;
    for file in &images {
        criu_images::check(&world.join(file.name.as_str()))?;
    }
    Ok(images.len() as u64)
}
