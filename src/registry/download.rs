//! One blob from a registry: from where an earlier attempt ended, by size and digest.

use std::io::Write;
use std::sync::Arc;

use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Method, Response, StatusCode};
use tokio::task::block_in_place;

use super::failure::{Failure, Patience};
use super::session::{self, Session};
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
        let mut response = self.ask(blob, digest).await?;
        let mut gathered = Vec::with_capacity(PIECE);
        loop {
            let piece = session::in_time(response.chunk()).await;
            if let Ok(Some(piece)) = &piece {
                gathered.extend_from_slice(piece);
                if gathered.len() < PIECE {
                    continue;
                }
            }
            self.write(blob, &gathered)?;
            gathered.clear();
            if piece?.is_none() {
                return Ok(());
            }
        }
    }

    /// Asks for the blob from where it stands.
    async fn ask(&self, blob: &mut PartialBlob, digest: &Digest) -> Result<Response, Failure> {
        let url = self.session.url(&format!("blobs/{digest}"))?;
        let offset = blob.offset();
        let request = match offset {
            0 => self.session.request(Method::GET, url),
            offset => self
                .session
                .request(Method::GET, url)
                .header(RANGE, format!("bytes={offset}-")),
        };
        let expected = [StatusCode::OK, StatusCode::PARTIAL_CONTENT];
        let answer = session::in_time(self.session.send(request, &expected)).await;
        let response = match answer {
            Err(failure) if failure.status() == Some(416) => {
                let text = format!(
                    "the registry has no more than {offset} of its {} bytes",
                    blob.size()
                );
                return Err(Error::new(ErrorKind::CorruptWorld, text).into());
            }
            answer => answer?,
        };
        let begins = session::text(response.headers(), CONTENT_RANGE.as_str());
        let begins = begins.is_some_and(|range| range.starts_with(&format!("bytes {offset}-")));
        let whole = response.status() == StatusCode::OK;
        match (whole, begins) {
            (true, _) if offset > 0 => blob.restart()?,
            (false, false) => {
                let text = "the registry sends another part of the blob than it was asked for";
                return Err(Failure::Broken(text.to_owned()));
            }
            _ => {}
        }
        Ok(response)
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
