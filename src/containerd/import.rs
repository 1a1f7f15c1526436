//! An image from our store into containerd's, as the tar of an OCI layout that containerd
//! takes over a stream: it checks, keeps, unpacks and names it in one go.

use std::collections::VecDeque;
use std::io::{Cursor, Read};

use containerd_client::services::v1::StreamInit;
use containerd_client::services::v1::TransferRequest;
use containerd_client::services::v1::streaming_client::StreamingClient;
use containerd_client::services::v1::transfer_client::TransferClient;
use containerd_client::to_any;
use containerd_client::tonic::{Status, Streaming};
use containerd_client::types::transfer::{
    Data, ImageImportStream, ImageReference, ImageStore, UnpackConfiguration, WindowUpdate,
};
use prost_types::Any;
use serde_json::json;
use tar::{EntryType, Header};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::images::here;
use super::{Namespace, refused};
use crate::digest::{hash_file, on_all_cores};
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::json as documents;
use crate::store::Store;
use crate::world::artifact::Content;

/// Most bytes of a message.
const PIECE: usize = 32 << 10;
const BLOCK: u64 = 512;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// What containerd calls such a tar; not compressed.
const TAR: &str = "application/vnd.oci.image.layout.v1+tar";

impl Namespace<'_> {
    /// Has containerd import and unpack an image that our store has: its manifest, and what
    /// that names. It becomes `NAME@DIGEST` of the manifest.
    ///
    /// [`ErrorKind::CorruptWorld`] where a blob is damaged; nothing was changed then.
    pub fn import_image(
        &self,
        store: &Store,
        name: &str,
        blobs: &[Content],
        snapshotter: &str,
        progress: &dyn Fn(u64),
    ) -> Result<()> {
        let what = format!("import the image {name}");
        let within = |error: Error| error.within(&what);
        let mut tar = layout(store, blobs).map_err(within)?;
        let id = format!("worldshim-{}", rustix::process::getpid().as_raw_pid());
        let source = ImageImportStream {
            stream: id.clone(),
            media_type: TAR.to_owned(),
            force_compress: false,
        };
        let destination = ImageStore {
            platforms: vec![here()],
            extra_references: vec![ImageReference {
                name: name.to_owned(),
                is_prefix: true,
                allow_overwrite: true,
                add_digest: true,
                skip_named_digest: false,
            }],
            unpacks: vec![UnpackConfiguration {
                platform: Some(here()),
                snapshotter: snapshotter.to_owned(),
            }],
            ..Default::default()
        };
        let mut transfers = TransferClient::new(self.containerd.channel.clone());
        let transfer = self.request(TransferRequest {
            source: Some(to_any(&source)),
            destination: Some(to_any(&destination)),
            options: None,
        });
        let mut streams = StreamingClient::new(self.containerd.channel.clone());
        self.containerd.runtime.block_on(async {
            let (out, pieces) = channel(1);
            // It is waiting in the channel when containerd looks at the stream.
            send(&out, to_any(&StreamInit { id })).await?;
            let answers = streams.stream(self.request(outgoing(pieces))).await;
            let mut answers = answers
                .map_err(|status| refused(&what, &status))?
                .into_inner();
            next(&mut answers, &what).await?;
            let feeding = async {
                feed(&mut tar, out, &mut answers, &what, progress).await?;
                // The transfer ends it.
                std::future::pending::<Result<()>>().await
            };
            tokio::select! {
                fed = feeding => fed,
                done = transfers.transfer(transfer) => match done {
                    Ok(_) => Ok(()),
                    Err(status) => Err(refused(&what, &status)),
                },
            }
        })
    }
}

/// Sends the tar as fast as containerd takes it.
async fn feed(
    tar: &mut dyn Read,
    out: Sender<Any>,
    answers: &mut Streaming<Any>,
    what: &str,
    progress: &dyn Fn(u64),
) -> Result<()> {
    let mut window = 0;
    let mut piece = vec![0; PIECE];
    loop {
        while window <= 0 {
            // containerd has had enough; why is the transfer's answer.
            let Some(answer) = next(answers, what).await? else {
                return Ok(());
            };
            let update: WindowUpdate = prost::Message::decode(answer.value.as_slice())
                .map_err(|error| Error::caused_by(ErrorKind::Unavailable, what, error))?;
            window += i64::from(update.update);
        }
        let most = PIECE.min(window as usize);
        let count = tar.read(&mut piece[..most]).context(|| what.to_owned())?;
        if count == 0 {
            return Ok(());
        }
        window -= count as i64;
        progress(count as u64);
        let data = piece[..count].to_vec();
        if send(&out, to_any(&Data { data })).await.is_err() {
            return Ok(());
        }
    }
}

async fn next(answers: &mut Streaming<Any>, what: &str) -> Result<Option<Any>> {
    let answer = answers.message().await;
    answer.map_err(|status: Status| refused(what, &status))
}

async fn send(out: &Sender<Any>, message: Any) -> Result<()> {
    let sent = out.send(message).await;
    sent.map_err(|_| Error::new(ErrorKind::Unavailable, "containerd closed the stream"))
}

/// What a channel is given, until its sender is dropped.
fn outgoing(pieces: Receiver<Any>) -> impl futures_util::Stream<Item = Any> {
    futures_util::stream::unfold(pieces, |mut pieces| async {
        let piece = pieces.recv().await?;
        Some((piece, pieces))
    })
}

/// The tar of an OCI layout of an image whose blobs all are whole.
fn layout(store: &Store, blobs: &[Content]) -> Result<impl Read> {
    let Some(manifest) = blobs.first() else {
        return Err(Error::new(
            ErrorKind::Internal,
            "an image without a manifest",
        ));
    };
    on_all_cores(blobs, |blob| {
        let opened = store.open_blob(&blob.digest)?;
        match hash_file(&opened.file, blob.digest)? == (blob.digest, blob.size) {
            true => Ok(()),
            false => {
                let text = format!("blob {} is damaged: see `world fsck`", blob.digest);
                Err(Error::new(ErrorKind::CorruptWorld, text))
            }
        }
    })?;
    let index = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [{
            "mediaType": store.document(&manifest.digest)?.media_type(),
            "digest": manifest.digest,
            "size": manifest.size,
        }],
    });
    let mut members = VecDeque::new();
    let version = documents::to_bytes(&json!({"imageLayoutVersion": "1.0.0"}))?;
    members.push_back(member(
        "oci-layout",
        version.len() as u64,
        Cursor::new(version),
    )?);
    let index = documents::to_bytes(&index)?;
    members.push_back(member(
        "index.json",
        index.len() as u64,
        Cursor::new(index),
    )?);
    for blob in blobs {
        let file = store.open_blob(&blob.digest)?.file;
        let path = format!("blobs/sha256/{}", blob.digest.hex());
        members.push_back(member(&path, blob.size, file)?);
    }
    members.push_back(Box::new(Cursor::new([0; 2 * BLOCK as usize])));
    Ok(Chain(members))
}

fn member(path: &str, size: u64, data: impl Read + 'static) -> Result<Box<dyn Read>> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_path(path).context(|| "make a tar")?;
    header.set_mode(0o600);
    header.set_size(size);
    header.set_cksum();
    let padding = size.next_multiple_of(BLOCK) - size;
    let head = Cursor::new(*header.as_bytes());
    let tail = std::io::repeat(0).take(padding);
    Ok(Box::new(head.chain(data.take(size)).chain(tail)))
}

/// One after the other.
struct Chain(VecDeque<Box<dyn Read>>);

impl Read for Chain {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while let Some(first) = self.0.front_mut() {
            match first.read(buffer)? {
                0 => drop(self.0.pop_front()),
                count => return Ok(count),
            }
        }
        Ok(0)
    }
}
