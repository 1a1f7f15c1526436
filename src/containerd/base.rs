//! Base images that worlds carry along: out of containerd's store into ours, and back.

use std::io::{BufWriter, IntoInnerError};

use oci_spec::image::ImageManifest;

use super::Namespace;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::store::{Document, Lease, MAX_DOCUMENT};
use crate::world::artifact::{BaseImage, Content, chain_id, parts_of};

/// Most manifests of an index that are looked at.
const MOST_MANIFESTS: usize = 256;

impl Namespace<'_> {
    /// Copies an image from containerd's store into that of `lease`: the one manifest of it
    /// whose layers are named `chain`, its config and its layers, each checked by its digest.
    ///
    /// [`ErrorKind::NotFound`] where containerd has the image no more, or not whole, or another
    /// one of that name.
    pub fn carry_image(
        &self,
        name: &str,
        chain: &str,
        lease: &Lease,
        progress: &dyn Fn(u64),
    ) -> Result<BaseImage> {
        let carry = || {
            let Some(image) = self.image(name)? else {
                let text = format!(
                    "it is not in containerd's namespace {} any more",
                    self.name()
                );
                return Err(Error::new(ErrorKind::NotFound, text));
            };
            let target = image.digest.parse()?;
            let (bytes, manifest) = self.manifest_of(&target, chain)?;
            let manifest_blob = Content {
                digest: Digest::of(&bytes),
                size: bytes.len() as u64,
            };
            let blobs = parts_of(manifest_blob, &manifest)?;
            let written = lease.put(&bytes)?;
            let mut new_bytes = if written.new { written.size } else { 0 };
            for blob in &blobs[1..] {
                new_bytes += self.carry_blob(blob, lease)?;
                progress(blob.size);
            }
            Ok(BaseImage { blobs, new_bytes })
        };
        carry().map_err(|error: Error| error.within(format!("carry along the image {name}")))
    }

    /// The manifest whose layers are named `chain`, behind a manifest or an index of some.
    fn manifest_of(&self, target: &Digest, chain: &str) -> Result<(Vec<u8>, ImageManifest)> {
        let bytes = self.small(target)?;
        let candidates = match Document::parse(&bytes)? {
            Document::Manifest(_) => vec![*target],
            Document::Index(index) => {
                let entries = index.manifests().iter().take(MOST_MANIFESTS);
                let entries = entries.filter(|entry| Document::is_one(entry.media_type()));
                let digests = entries.map(|entry| entry.digest().to_string().parse());
                digests.collect::<Result<Vec<Digest>>>()?
            }
        };
        for digest in candidates {
            // Those of other platforms are usually not there.
            let bytes = match self.small(&digest) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                bytes => bytes?,
            };
            let Document::Manifest(manifest) = Document::parse(&bytes)? else {
                continue;
            };
            let config = self.small(&manifest.config().digest().to_string().parse()?);
            if config.is_ok_and(|config| chain_id(&config).is_ok_and(|found| found == chain)) {
                return Ok((bytes, manifest));
            }
        }
        Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "the container stands on the layers {chain}, and what containerd has by that name \
                 now has others, or is not whole"
            ),
        ))
    }

    fn small(&self, digest: &Digest) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read_content(digest, MAX_DOCUMENT as u64, &mut bytes)?;
        Ok(bytes)
    }

    /// Returns how many bytes our store did not have before.
    fn carry_blob(&self, blob: &Content, lease: &Lease) -> Result<u64> {
        if lease.hold(&blob.digest)? == Some(blob.size) {
            return Ok(0);
        }
        let mut out = BufWriter::with_capacity(256 << 10, lease.write_blob()?);
        let read = self.read_content(&blob.digest, blob.size, &mut out);
        read.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::new(
                ErrorKind::NotFound,
                format!(
                    "containerd has unpacked its blob {} and not kept it \
                     (discard_unpacked_layers): `ctr content fetch` brings it back",
                    blob.digest
                ),
            ),
            _ => error,
        })?;
        let out = out.into_inner().map_err(IntoInnerError::into_error);
        let written = out.context(|| "store a blob of the image")?.finish()?;
        Ok(if written.new { written.size } else { 0 })
    }
}
