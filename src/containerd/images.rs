//! Images: what a container's base is, and fetching one that is missing.

use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::transfer_client::TransferClient;
use containerd_client::services::v1::{GetImageRequest, TransferRequest};
use containerd_client::to_any;
use containerd_client::types::Platform;
use containerd_client::types::transfer::{ImageStore, OciRegistry, UnpackConfiguration};

use super::Namespace;
use crate::error::{Error, ErrorKind, Result};

/// An image in containerd's store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name.
    pub name: String,
    /// Digest of its manifest or index.
    pub digest: String,
}

impl Namespace<'_> {
    /// An image by its name; `None` when it is not in the store.
    pub fn image(&self, name: &str) -> Result<Option<Image>> {
        let mut client = ImagesClient::new(self.containerd.channel.clone());
        let get = self.request(GetImageRequest {
            name: name.to_owned(),
        });
        let answer = self.ask(
            format!("image {name}"),
            async move { client.get(get).await },
        );
        let image = match answer {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            answer => answer?.image,
        };
        Ok(image.map(|image| Image {
            name: image.name,
            digest: image.target.map(|target| target.digest).unwrap_or_default(),
        }))
    }

    /// Has containerd fetch and unpack an image, such as `NAME@DIGEST`.
    pub fn pull(&self, reference: &str, snapshotter: &str) -> Result<()> {
        let platform = here();
        let source = OciRegistry {
            reference: reference.to_owned(),
            resolver: None,
        };
        let destination = ImageStore {
            name: reference.to_owned(),
            platforms: vec![platform.clone()],
            unpacks: vec![UnpackConfiguration {
                platform: Some(platform),
                snapshotter: snapshotter.to_owned(),
            }],
            ..Default::default()
        };
        let mut client = TransferClient::new(self.containerd.channel.clone());
        let transfer = self.request(TransferRequest {
            source: Some(to_any(&source)),
            destination: Some(to_any(&destination)),
            options: None,
        });
        let what = format!("pull {reference}");
        self.ask_patiently(what, async move { client.transfer(transfer).await })
            .map_err(|error| match error.kind() {
                // What containerd has no code for is the registry, or the way there.
                ErrorKind::Runtime => Error::new(ErrorKind::Unavailable, error.to_string()),
                _ => error,
            })
    }
}

/// This machine in the words of OCI images.
pub(super) fn here() -> Platform {
    Platform {
        os: "linux".to_owned(),
        architecture: go_architecture().to_owned(),
        ..Default::default()
    }
}

fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
