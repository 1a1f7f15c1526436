//! Content: blobs of containerd's store, read as a stream.

use std::io::Write;

use containerd_client::services::v1::ReadContentRequest;
use containerd_client::services::v1::content_client::ContentClient;

use super::{Namespace, refused, silent};
use crate::digest::{Digest, Hashing};
use crate::error::{Error, ErrorKind, IoContext, Result};

impl Namespace<'_> {
    /// Writes a blob of at most `limit` bytes to `out`. Returns its size in bytes.
    ///
    /// [`ErrorKind::CorruptWorld`] where it is larger, or its digest does not fit: `out` has
    /// had some of it then.
    pub fn read_content(&self, digest: &Digest, limit: u64, out: &mut dyn Write) -> Result<u64> {
        let what = format!("blob {digest}");
        let mut client = ContentClient::new(self.containerd.channel.clone());
        let read = self.request(ReadContentRequest {
            digest: digest.to_string(),
            offset: 0,
            size: 0,
        });
        let mut pieces = self.ask(&what, async move { client.read(read).await })?;
        let mut hashing = Hashing::default();
        let patience = self.containerd.patience;
        loop {
            let next = self
                .containerd
                .runtime
                .block_on(async { tokio::time::timeout(patience, pieces.message()).await });
            let piece = next
                .map_err(|_| silent(&self.containerd.socket, patience))?
                .map_err(|status| refused(&what, &status))?;
            let Some(piece) = piece else { break };
            hashing.update(&piece.data);
            if hashing.size() > limit {
                return Err(corrupt(format!("{what} is larger than {limit} bytes")));
            }
            out.write_all(&piece.data)
                .context(|| format!("write {what}"))?;
        }
        out.flush().context(|| format!("write {what}"))?;
        match hashing.finish() {
            (found, size) if found == *digest => Ok(size),
            _ => Err(corrupt(format!("{what} is damaged in containerd's store"))),
        }
    }
}

fn corrupt(what: String) -> Error {
    Error::new(ErrorKind::CorruptWorld, what)
}
