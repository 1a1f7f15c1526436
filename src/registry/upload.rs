//! One blob to a registry: at once if it is small, else in pieces, going on after
//! a failure from where the registry says that it is.
//!
//! A registry may have lost count: docker-registry goes on between two pieces and
//! forgets an upload that broke off within one. Then the blob begins again.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, LOCATION, RANGE};
use reqwest::{Body, Method, Response, StatusCode, Url};

use super::failure::{Failure, Patience};
use super::session::{self, Session};
use super::{Carried, Moved, Watch};
use crate::digest::{Digest, hash_file};
use crate::{Error, ErrorKind};

/// Largest piece sent by one request, in bytes: less than what proxies let through.
const PIECE: u64 = 32 << 20;
/// What is read from the disk at once, in bytes: small enough for the allocator to use again.
const BLOCK: u64 = 64 << 10;
const BYTES: &str = "application/octet-stream";

pub(super) struct Upload {
    pub session: Arc<Session>,
    pub file: Arc<File>,
    pub digest: Digest,
    pub size: u64,
    pub watch: Watch,
}

/// What the registry has of the blob.
struct Begun {
    /// Where to send the next piece.
    location: Url,
    /// How many bytes are there.
    offset: u64,
}

impl Upload {
    /// Brings the blob there, unless the repository has it.
    pub async fn run(&self) -> Result<Carried, Failure> {
        let mut patience = Patience::default();
        let mut begun = None;
        let mut sent = 0;
        loop {
            match self.attempt(&mut begun, &mut sent, &mut patience).await {
                Ok(carried) => return Ok(carried),
                Err(failure) => {
                    let failure = self.explain(failure);
                    self.session.bear(failure, &mut patience).await?;
                    let before = begun.as_ref().map_or(0, |begun| begun.offset);
                    begun = self.ask_offset(begun).await;
                    if let Some(begun) = &begun
                        && begun.offset > before
                    {
                        patience.restore();
                    }
                }
            }
        }
    }

    async fn attempt(
        &self,
        begun: &mut Option<Begun>,
        sent: &mut u64,
        patience: &mut Patience,
    ) -> Result<Carried, Failure> {
        if begun.is_none() {
            if self.session.has_blob(&self.digest).await? {
                return Ok(self.skipped(*sent));
            }
            *begun = Some(self.begin().await?);
        }
        let Some(upload) = begun else {
            return Err(Error::new(ErrorKind::Internal, "an upload that did not begin").into());
        };
        while self.size - upload.offset > PIECE || (upload.offset > 0 && upload.offset < self.size)
        {
            let length = PIECE.min(self.size - upload.offset);
            *upload = self.send_piece(upload, length).await?;
            *sent += length;
            patience.restore();
        }
        self.finish(upload).await?;
        *sent += self.size - upload.offset;
        Ok(Carried::Bytes(*sent))
    }

    /// It is there: since an earlier push, or since an attempt whose end we did not see.
    fn skipped(&self, sent: u64) -> Carried {
        match sent {
            0 => {
                (self.watch)(Moved::Skipped(self.size));
                Carried::Skipped
            }
            sent => Carried::Bytes(sent),
        }
    }

    async fn begin(&self) -> Result<Begun, Failure> {
        let url = self.session.url("blobs/uploads/")?;
        let request = self.session.request(Method::POST, url);
        let request = request.header(CONTENT_LENGTH, 0);
        let response = self.session.send(request, &[StatusCode::ACCEPTED]).await?;
        Ok(Begun {
            location: location(&response)?,
            offset: 0,
        })
    }

    async fn send_piece(&self, upload: &Begun, length: u64) -> Result<Begun, Failure> {
        let end = upload.offset + length;
        let request = self
            .session
            .request(Method::PATCH, upload.location.clone())
            .header(CONTENT_TYPE, BYTES)
            .header(CONTENT_LENGTH, length)
            .header(CONTENT_RANGE, format!("{}-{}", upload.offset, end - 1))
            .body(self.body(upload.offset, length));
        let expected = [StatusCode::ACCEPTED];
        let response = self.session.send(request, &expected).await?;
        Ok(Begun {
            location: location(&response)?,
            offset: end,
        })
    }

    /// Ends the upload, with all of a small blob.
    async fn finish(&self, upload: &Begun) -> Result<(), Failure> {
        let mut url = upload.location.clone();
        url.query_pairs_mut()
            .append_pair("digest", &self.digest.to_string());
        let length = self.size - upload.offset;
        let mut request = self
            .session
            .request(Method::PUT, url)
            .header(CONTENT_LENGTH, length);
        if length > 0 {
            request = request
                .header(CONTENT_TYPE, BYTES)
                .body(self.body(upload.offset, length));
        }
        let expected = [StatusCode::CREATED, StatusCode::NO_CONTENT];
        self.session.send(request, &expected).await?;
        Ok(())
    }

    /// A part of the blob, read while it is sent.
    fn body(&self, offset: u64, length: u64) -> Body {
        let (file, watch) = (Arc::clone(&self.file), Arc::clone(&self.watch));
        let end = offset + length;
        let blocks = (offset..end).step_by(BLOCK as usize);
        let blocks = blocks.map(move |at| {
            let mut block = vec![0; BLOCK.min(end - at) as usize];
            file.read_exact_at(&mut block, at)?;
            watch(Moved::Carried(block.len() as u64));
            Ok::<_, std::io::Error>(block)
        });
        Body::wrap_stream(futures_util::stream::iter(blocks))
    }

    /// How far an upload has come; `None` to begin again.
    async fn ask_offset(&self, begun: Option<Begun>) -> Option<Begun> {
        let begun = begun?;
        let request = self.session.request(Method::GET, begun.location.clone());
        let expected = [StatusCode::NO_CONTENT];
        let response = self.session.send(request, &expected).await.ok()?;
        let offset = received(response.headers())?;
        let location = location(&response).unwrap_or(begun.location);
        (offset <= self.size).then_some(Begun { location, offset })
    }

    /// A registry that finds another digest may have been sent a damaged blob.
    fn explain(&self, failure: Failure) -> Failure {
        if failure.status() != Some(400) {
            return failure;
        }
        match hash_file(&self.file, self.digest) {
            Ok(found) if found == (self.digest, self.size) => failure,
            Ok(_) => Failure::Ours(Error::new(
                ErrorKind::CorruptWorld,
                "it is damaged in the store: see `world fsck`",
            )),
            Err(error) => error.into(),
        }
    }
}

/// Where an upload goes on: absolute, or seen from where the answer came from.
fn location(response: &Response) -> Result<Url, Failure> {
    let told = session::text(response.headers(), LOCATION.as_str());
    let url = told.and_then(|told| response.url().join(&told).ok());
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or_else(|| {
        let text = "the registry does not say where an upload goes to";
        Error::new(ErrorKind::Unavailable, text).into()
    })
}

/// How many bytes a registry has of an upload: `Range: 0-LAST`, where `0-0` is none.
fn received(headers: &HeaderMap) -> Option<u64> {
    let told = session::text(headers, RANGE.as_str())?;
    let last = told.trim_start_matches("bytes=").strip_prefix("0-")?;
    match last.parse::<u64>().ok()? {
        0 => Some(0),
        last => last.checked_add(1),
    }
}
