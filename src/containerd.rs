//! Talking to containerd over its socket, from a command that otherwise never waits.

use std::future::Future;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::introspection_client::IntrospectionClient;
use containerd_client::services::v1::snapshots::StatSnapshotRequest;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::version_client::VersionClient;
use containerd_client::services::v1::{
    GetContainerRequest, GetImageRequest, Plugin, PluginsRequest, VersionResponse,
};
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Code, Request};
use tokio::runtime::{Builder, Runtime};

use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::world::identity::Identity;
use crate::world::manifest::ImageIdentity;

/// A connection to a running containerd.
pub struct Containerd {
    socket: PathBuf,
    runtime: Runtime,
    channel: Channel,
    patience: Duration,
}

impl Containerd {
    /// Connects; each answer may take `patience`. Fails with [`ErrorKind::Unavailable`] when nobody answers.
    pub fn connect(socket: &Path, patience: Duration) -> Result<Containerd> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .context(|| "start an I/O loop")?;
        // The client's own error says no more than "transport error": look first.
        UnixStream::connect(socket).map_err(|error| {
            Error::caused_by(
                ErrorKind::Unavailable,
                format!("connect to containerd at {}", socket.display()),
                error,
            )
        })?;
        let channel = runtime
            .block_on(async {
                tokio::time::timeout(patience, containerd_client::connect(socket)).await
            })
            .map_err(|_| silent(socket, patience))?
            .map_err(|error| {
                Error::caused_by(
                    ErrorKind::Unavailable,
                    format!("connect to containerd at {}", socket.display()),
                    error,
                )
            })?;
        Ok(Containerd {
            socket: socket.to_owned(),
            runtime,
            channel,
            patience,
        })
    }

    /// Its version and revision.
    pub fn version(&self) -> Result<VersionResponse> {
        let mut client = VersionClient::new(self.channel.clone());
        self.ask("version", async move { client.version(()).await })
    }

    /// Its plugins, each with its state and exports.
    pub fn plugins(&self) -> Result<Vec<Plugin>> {
        let mut client = IntrospectionClient::new(self.channel.clone());
        let all = PluginsRequest {
            filters: Vec::new(),
        };
        let answer = self.ask("plugins", async move { client.plugins(all).await })?;
        Ok(answer.plugins)
    }

    /// The pid that listens on the socket; `None` when it is in another pid namespace.
    pub fn pid(&self) -> Option<i32> {
        let stream = UnixStream::connect(&self.socket).ok()?;
        let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
        Some(peer.pid.as_raw_nonzero().get())
    }

    /// Who a container is.
    pub fn identity(&self, namespace: &str, id: &str) -> Result<Identity> {
        let mut client = ContainersClient::new(self.channel.clone());
        let get = within(namespace, GetContainerRequest { id: id.to_owned() })?;
        let container = self
            .ask("container", async move { client.get(get).await })?
            .container
            .unwrap_or_default();
        let chain_id = match container.snapshot_key.as_str() {
            "" => None,
            key => self.parent_of(namespace, &container.snapshotter, key)?,
        };
        let image = match container.image.as_str() {
            "" => None,
            name => Some(ImageIdentity {
                digest: self.image_digest(namespace, name)?,
                name: name.to_owned(),
            }),
        };
        Ok(Identity {
            labels: container.labels.into_iter().collect(),
            image,
            snapshotter: Some(container.snapshotter).filter(|name| !name.is_empty()),
            chain_id,
        })
    }

    /// The snapshot's parent; for an image's layers that is their chain id.
    fn parent_of(&self, namespace: &str, snapshotter: &str, key: &str) -> Result<Option<String>> {
        let mut client = SnapshotsClient::new(self.channel.clone());
        let request = StatSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
        };
        let stat = within(namespace, request)?;
        let answer = self.ask("snapshot", async move { client.stat(stat).await })?;
        let parent = answer.info.map(|info| info.parent);
        Ok(parent.filter(|parent| !parent.is_empty()))
    }

    /// An image's digest; `None` for one that is gone from the store.
    fn image_digest(&self, namespace: &str, name: &str) -> Result<Option<String>> {
        let mut client = ImagesClient::new(self.channel.clone());
        let request = GetImageRequest {
            name: name.to_owned(),
        };
        let get = within(namespace, request)?;
        match self.ask("image", async move { client.get(get).await }) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            answer => Ok(answer?
                .image
                .and_then(|image| image.target)
                .map(|target| target.digest)),
        }
    }

    fn ask<T>(&self, what: &str, question: impl Future<Output = Answer<T>>) -> Result<T> {
        self.runtime
            .block_on(async { tokio::time::timeout(self.patience, question).await })
            .map_err(|_| silent(&self.socket, self.patience))?
            .map(|answer| answer.into_inner())
            .map_err(|status| {
                let kind = match status.code() {
                    Code::NotFound => ErrorKind::NotFound,
                    _ => ErrorKind::Unavailable,
                };
                Error::caused_by(kind, format!("ask containerd for its {what}"), status)
            })
    }
}

/// A request about things of one namespace.
fn within<T>(namespace: &str, request: T) -> Result<Request<T>> {
    let mut request = Request::new(request);
    let value = namespace.parse().map_err(|error| {
        let text = format!("{namespace:?} is no containerd namespace");
        Error::caused_by(ErrorKind::InvalidInput, text, error)
    })?;
    request.metadata_mut().insert("containerd-namespace", value);
    Ok(request)
}

type Answer<T> =
    std::result::Result<containerd_client::tonic::Response<T>, containerd_client::tonic::Status>;

fn silent(socket: &Path, patience: Duration) -> Error {
    Error::new(
        ErrorKind::Timeout,
        format!(
            "containerd at {} does not answer within {patience:?}",
            socket.display()
        ),
    )
}
