//! A world of a registry comes to the store: looked at first, published last.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::download::Download;
use super::failure::Failure;
use super::remote::Remote;
use super::{Carried, Transfer, Watch};
use crate::digest::Digest;
use crate::error::IoContext;
use crate::store::{Document, Lease, Published, Store, WorldName};
use crate::world::artifact::{self, Artifact};
use crate::{Error, ErrorKind, Result};

/// A world that a registry has.
#[derive(Debug)]
pub struct Found {
    /// Of its manifest.
    pub digest: Digest,
    /// The manifest's bytes.
    manifest: Vec<u8>,
    artifact: Artifact,
    blobs: Vec<(Digest, u64)>,
}

impl Found {
    /// Of all that it consists of, in bytes, the manifest included.
    pub fn bytes(&self) -> u64 {
        let sizes = self.blobs.iter().map(|(_, size)| *size);
        sizes.fold(self.manifest.len() as u64, u64::saturating_add)
    }
}

impl Remote {
    /// Looks which world is there. Nothing but its manifest is fetched.
    ///
    /// [`ErrorKind::NotFound`] where there is none, [`ErrorKind::ForeignWorld`] where it is
    /// something else, [`ErrorKind::CorruptWorld`] where the manifest is damaged or hostile.
    pub fn find(&self) -> Result<Found> {
        let doing = format!("pull {}", self.place);
        let (manifest, told) = self.insist(&doing, || self.session.manifest())?;
        let digest = Digest::of(&manifest);
        let expected = self.place.digest().map(|digest| digest.to_string());
        if let Some(expected) = expected.or(told)
            && expected != digest.to_string()
        {
            let text = format!(
                "{doing}: what came as the manifest {} has the digest {digest}",
                expected.escape_debug()
            );
            return Err(Error::new(ErrorKind::CorruptWorld, text));
        }
        let read = || {
            let document = Document::parse(&manifest);
            let artifact = match document.map_err(|error| error.within("its manifest"))? {
                Document::Manifest(manifest) => Artifact::of(&manifest)?,
                Document::Index(_) => {
                    let text =
                        "it is an image index and no world: name one of its manifests by digest";
                    return Err(Error::new(ErrorKind::ForeignWorld, text));
                }
            };
            let blobs = blobs_of(&artifact)?;
            Ok((artifact, blobs))
        };
        let (artifact, blobs) = read().map_err(|error: Error| error.within(&doing))?;
        Ok(Found {
            digest,
            manifest,
            artifact,
            blobs,
        })
    }

    /// Makes a found world one of the store, under `name` if one is given. What was fetched
    /// before a failure stays for the next time; of a world that is damaged nothing is published.
    pub fn pull(
        &self,
        found: &Found,
        lease: &Lease,
        name: Option<&WorldName>,
        watch: &Watch,
    ) -> Result<(Transfer, Published)> {
        self.must_fit(found, lease.store())?;
        let carried = self.fetch(found, lease, watch)?;
        let new = lease.store().blob_size(&found.digest)?.is_none();
        let published = self.publish(found, lease, name)?;
        let size = found.manifest.len() as u64;
        let transfer = Transfer::of(found.digest, size, &found.blobs, &carried);
        let manifest = if new { size } else { 0 };
        Ok((transfer.with_manifest(manifest), published))
    }

    /// Fetches all blobs. Pages of its packs become known when a world follows it: until then
    /// nobody relies on what the packs say of themselves, and a restore checks every page.
    fn fetch(&self, found: &Found, lease: &Lease, watch: &Watch) -> Result<Vec<Carried>> {
        let download = Arc::new(Download {
            session: Arc::clone(&self.session),
            lease: lease.clone(),
            watch: Arc::clone(watch),
        });
        let tasks = found.blobs.iter().map(|(digest, size)| {
            let (digest, size) = (*digest, *size);
            let (download, place) = (Arc::clone(&download), self.place.clone());
            async move {
                let doing = format!("pull blob {digest} of {place}");
                let carried = download.run(&digest, size).await;
                carried.map_err(|failure: Failure| {
                    let error = failure.into_error(&doing, place.registry());
                    match error.kind() {
                        ErrorKind::CorruptWorld => damaged_there(&error),
                        _ => error,
                    }
                })
            }
        });
        self.all(tasks)
    }

    /// What a disk can never hold need not be begun. Whether there is room for the rest shows
    /// when it is written: part of it may be there from an earlier attempt.
    fn must_fit(&self, found: &Found, store: &Store) -> Result<()> {
        let disk = rustix::fs::statvfs(store.path())
            .context(|| format!("look at the disk of {}", store.path().display()))?;
        let disk = disk.f_blocks.saturating_mul(disk.f_frsize);
        match found.bytes() {
            needed if needed <= disk => Ok(()),
            needed => {
                let text = format!(
                    "pull {}: no room for {needed} bytes on the disk of {}, which has {disk}",
                    self.place,
                    store.path().display()
                );
                Err(Error::new(ErrorKind::NoSpace, text))
            }
        }
    }

    fn publish(&self, found: &Found, lease: &Lease, name: Option<&WorldName>) -> Result<Published> {
        let store = lease.store();
        let publish = || {
            lease.put(&found.manifest)?;
            artifact::load(store, &found.digest)?;
            store.publish(lease, &found.manifest, &found.artifact.annotations, name)
        };
        publish().map_err(|error| error.within(format!("pull {}", self.place)))
    }
}

/// Says what to do about a blob that is not what it is to be.
fn damaged_there(error: &Error) -> Error {
    let text = format!("{error}; the registry's copy is damaged: push the world there again");
    Error::new(ErrorKind::CorruptWorld, text)
}

/// Every blob of a world once, the largest first.
pub(super) fn blobs_of(artifact: &Artifact) -> Result<Vec<(Digest, u64)>> {
    let mut sizes = BTreeMap::from([(artifact.config.digest, artifact.config.size)]);
    for (_, content) in artifact.layers() {
        let before = sizes.insert(content.digest, content.size);
        if before.is_some_and(|before| before != content.size) {
            let text = format!("its manifest gives blob {} two sizes", content.digest);
            return Err(Error::new(ErrorKind::CorruptWorld, text));
        }
    }
    let mut blobs: Vec<_> = sizes.into_iter().collect();
    blobs.sort_by_key(|(digest, size)| (std::cmp::Reverse(*size), *digest));
    Ok(blobs)
}
