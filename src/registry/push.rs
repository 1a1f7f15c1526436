//! A world of the store goes to a registry: blobs first, its manifest last.

use std::sync::Arc;

use reqwest::header::HeaderValue;

use super::remote::Remote;
use super::upload::Upload;
use super::{Carried, Transfer, Watch, pull::blobs_of};
use crate::digest::Digest;
use crate::store::{Document, Lease, MAX_DOCUMENT};
use crate::world::artifact;
use crate::{Error, ErrorKind, Result};

impl Remote {
    /// Pushes a world, which `lease` must hold. What the registry has is not sent again.
    ///
    /// [`ErrorKind::CorruptWorld`] where the world is damaged, [`ErrorKind::ForeignWorld`]
    /// where it is none; else as [`Remote::for_push`].
    pub fn push(&self, lease: &Lease, world: &Digest, watch: &Watch) -> Result<Transfer> {
        let store = lease.store();
        self.must_be_meant(world)?;
        let (artifact, _) = artifact::load(store, world)?;
        let manifest = store.read(world, MAX_DOCUMENT)?;
        let blobs = blobs_of(&artifact)?;
        let mut uploads = Vec::with_capacity(blobs.len());
        for (digest, size) in &blobs {
            let blob = store.open_blob(digest)?;
            if blob.size != *size {
                let text = format!("blob {digest} has {} bytes and not {size}", blob.size);
                return Err(Error::new(ErrorKind::CorruptWorld, text));
            }
            uploads.push(Upload {
                session: Arc::clone(&self.session),
                file: Arc::new(blob.file),
                digest: *digest,
                size: *size,
                watch: Arc::clone(watch),
            });
        }
        let place = self.place.clone();
        let tasks = uploads.into_iter().map(|upload| {
            let place = place.clone();
            async move {
                let doing = format!("push blob {} to {place}", upload.digest);
                let carried = upload.run().await;
                carried.map_err(|failure| failure.into_error(&doing, place.registry()))
            }
        });
        let carried = self.all(tasks)?;
        let sent = self.push_manifest(world, &manifest)?;
        Ok(Transfer::of(*world, manifest.len() as u64, &blobs, &carried).with_manifest(sent))
    }

    /// A digest in the reference must be the world's.
    fn must_be_meant(&self, world: &Digest) -> Result<()> {
        match self.place.digest() {
            Some(digest) if digest != *world => {
                let text = format!("{} is not the digest of the world, {world}", self.place);
                Err(Error::new(ErrorKind::InvalidInput, text))
            }
            _ => Ok(()),
        }
    }

    /// Returns how many bytes were sent: none where the tag leads to the world already.
    fn push_manifest(&self, world: &Digest, manifest: &[u8]) -> Result<u64> {
        let doing = format!("push the manifest {world} to {}", self.place);
        let media_type = Document::parse(manifest)?.media_type().to_string();
        let media_type = HeaderValue::from_str(&media_type)
            .map_err(|error| Error::caused_by(ErrorKind::CorruptWorld, &doing, error))?;
        let session = &self.session;
        if self.tagged(&doing)? == Some(world.to_string()) {
            return Ok(0);
        }
        self.insist(&doing, || async {
            let sent = session.client.push_manifest_raw(
                &session.target,
                manifest.to_vec(),
                media_type.clone(),
            );
            sent.await?;
            Ok(())
        })?;
        match self.tagged(&doing)? {
            Some(found) if found == world.to_string() => Ok(manifest.len() as u64),
            found => {
                let found = found.unwrap_or_else(|| "nothing".to_owned());
                let text = format!("{doing}: the registry has {found} there afterwards");
                Err(Error::new(ErrorKind::Unavailable, text))
            }
        }
    }

    /// The digest that the tag leads to.
    fn tagged(&self, doing: &str) -> Result<Option<String>> {
        let session = &self.session;
        self.insist(doing, || async {
            let found = session
                .client
                .fetch_manifest_digest(&session.target, session.credentials());
            match found.await.map_err(super::failure::Failure::from) {
                Ok(digest) => Ok(Some(digest)),
                Err(failure) if failure.status() == Some(404) => Ok(None),
                Err(failure) => Err(failure),
            }
        })
    }
}

impl Transfer {
    pub(super) fn of(
        digest: Digest,
        manifest: u64,
        blobs: &[(Digest, u64)],
        carried: &[Carried],
    ) -> Transfer {
        let mut transfer = Transfer {
            digest,
            bytes: blobs
                .iter()
                .fold(manifest, |sum, (_, size)| sum.saturating_add(*size)),
            transferred_bytes: 0,
            blobs: blobs.len() as u64,
            skipped_blobs: 0,
        };
        for carried in carried {
            match carried {
                Carried::Bytes(bytes) => transfer.transferred_bytes += bytes,
                Carried::Skipped => transfer.skipped_blobs += 1,
            }
        }
        transfer
    }

    pub(super) fn with_manifest(mut self, bytes: u64) -> Transfer {
        self.transferred_bytes += bytes;
        self
    }
}
