//! One blob from a registry: from where an earlier attempt ended, by size and digest.

use std::io::Write;
use std::sync::Arc;

use futures_util::StreamExt;
use oci_client::client::BlobResponse;
use tokio::task::block_in_place;

use super::failure::{Failure, Patience, chain};
use super::session::Session;
use super::{Carried, Moved, Watch};
use crate::digest::Digest;
use crate::error::IoContext;
use crate::store::{Lease, PartialBlob};
use crate::{Error, ErrorKind};

/// What is gathered before it is written, in bytes.
const PIECE: usize = 256 << 10;

pub(super) struct Download {
    pub session: Arc<Session>,
    pub lease: Lease,
    pub watch: Watch,
}

impl Download {
    /// Fetches a blob, unless the store has it.
    pub async fn run(&self, digest: &Digest, size: u64) -> Result<Carried, Failure> {
        let mut resumed = false;
        loop {
            let Some(blob) = block_in_place(|| self.lease.fetch_blob(digest, size))? else {
                (self.watch)(Moved::Skipped(size));
                return Ok(Carried::Skipped);
            };
            let begun = blob.offset();
            (self.watch)(Moved::Skipped(begun));
            let blob = self.receive_all(blob, digest).await?;
            match block_in_place(|| blob.finish()) {
                Ok(_) => return Ok(Carried::Bytes(size - begun)),
                // What an earlier attempt left may have been the damage.
                Err(error) if error.kind() == ErrorKind::CorruptWorld && begun > 0 && !resumed => {
                    tracing::info!("{error}: once more from the start");
                    resumed = true;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn receive_all(
        &self,
        mut blob: PartialBlob,
        digest: &Digest,
    ) -> Result<PartialBlob, Failure> {
        let mut patience = Patience::default();
        while blob.offset() < blob.size() {
            let before = blob.offset();
            let received = self.receive(&mut blob, digest).await;
            if blob.offset() > before {
                patience.restore();
            }
            let failure = match received {
                Err(failure) => failure,
                Ok(()) if blob.offset() > before => continue,
                Ok(()) => Failure::Broken("the registry sends less than the blob".to_owned()),
            };
            self.session.bear(failure, &mut patience).await?;
        }
        Ok(blob)
    }

    /// Takes what one answer has.
    async fn receive(&self, blob: &mut PartialBlob, digest: &Digest) -> Result<(), Failure> {
        let session = &self.session;
        let name = digest.to_string();
        let asked = session.client.pull_blob_stream_partial(
            &session.target,
            name.as_str(),
            blob.offset(),
            None,
        );
        let mut stream = match asked.await? {
            BlobResponse::Partial(stream) => stream,
            BlobResponse::Full(stream) => {
                blob.restart()?;
                stream
            }
        };
        let mut gathered = Vec::with_capacity(PIECE);
        while let Some(piece) = stream.next().await {
            let piece = match piece {
                Ok(piece) => piece,
                Err(error) => {
                    self.write(blob, &gathered)?;
                    return Err(Failure::Broken(chain(&error)));
                }
            };
            gathered.extend_from_slice(&piece);
            if gathered.len() >= PIECE {
                self.write(blob, &gathered)?;
                gathered.clear();
            }
        }
        self.write(blob, &gathered)
    }

    fn write(&self, blob: &mut PartialBlob, bytes: &[u8]) -> Result<(), Failure> {
        if bytes.len() as u64 > blob.size() - blob.offset() {
            let text = format!("the registry sends more than its {} bytes", blob.size());
            return Err(Error::new(ErrorKind::CorruptWorld, text).into());
        }
        let place = || format!("write to the store {}", self.lease.store().path().display());
        blob.write_all(bytes).context(place)?;
        (self.watch)(Moved::Carried(bytes.len() as u64));
        Ok(())
    }
}
