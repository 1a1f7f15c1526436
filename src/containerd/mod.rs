//! Talking to containerd over its socket, from a command that otherwise never waits.

mod base;
pub mod committed;
mod containers;
mod content;
mod images;
mod import;
mod leases;
mod snapshots;
mod tasks;

use std::fmt::Display;
use std::future::Future;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_client::services::v1::introspection_client::IntrospectionClient;
use containerd_client::services::v1::namespaces_client::NamespacesClient;
use containerd_client::services::v1::version_client::VersionClient;
use containerd_client::services::v1::{
    ListNamespacesRequest, Plugin, PluginsRequest, VersionResponse,
};
use containerd_client::tonic::metadata::{Ascii, MetadataValue};
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Code, Request, Status};
use tokio::runtime::{Builder, Runtime};

use crate::error::{Error, ErrorKind, IoContext, Result};
pub use containers::{Container, Listed};
pub use images::Image;
pub use leases::ContainerdLease;
pub use snapshots::Snapshot;
pub use tasks::{CheckpointWishes, Streams, TaskState};

/// How long a checkpoint, a restore or a pull may take.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);

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
        let question = async move { client.version(()).await };
        self.ask("containerd's version", self.patience, question)
    }

    /// Its plugins, each with its state and exports.
    pub fn plugins(&self) -> Result<Vec<Plugin>> {
        let mut client = IntrospectionClient::new(self.channel.clone());
        let all = PluginsRequest {
            filters: Vec::new(),
        };
        let question = async move { client.plugins(all).await };
        let answer = self.ask("containerd's plugins", self.patience, question)?;
        Ok(answer.plugins)
    }

    /// The names of its namespaces.
    pub fn namespaces(&self) -> Result<Vec<String>> {
        let mut client = NamespacesClient::new(self.channel.clone());
        let all = ListNamespacesRequest::default();
        let question = async move { client.list(all).await };
        let answer = self.ask("containerd's namespaces", self.patience, question)?;
        Ok(answer.namespaces.into_iter().map(|one| one.name).collect())
    }

    /// The names of its snapshotters that work.
    pub fn snapshotters(&self) -> Result<Vec<String>> {
        let works = |plugin: &Plugin| {
            plugin.r#type == "io.containerd.snapshotter.v1" && plugin.init_err.is_none()
        };
        let all = self.plugins()?.into_iter().filter(works);
        Ok(all.map(|plugin| plugin.id).collect())
    }

    /// The pid that listens on the socket; `None` when it is in another pid namespace.
    pub fn pid(&self) -> Option<i32> {
        let stream = UnixStream::connect(&self.socket).ok()?;
        let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
        Some(peer.pid.as_raw_nonzero().get())
    }

    /// The things of one of its namespaces.
    pub fn namespace(&self, name: &str) -> Result<Namespace<'_>> {
        let value = name.parse().map_err(|error| {
            let text = format!("{name:?} is no containerd namespace");
            Error::caused_by(ErrorKind::InvalidInput, text, error)
        })?;
        Ok(Namespace {
            containerd: self,
            name: name.to_owned(),
            value,
        })
    }

    /// Waits for an answer; `what` reads like "the container x".
    fn ask<T>(
        &self,
        what: impl Display,
        patience: Duration,
        question: impl Future<Output = Answer<T>>,
    ) -> Result<T> {
        self.runtime
            .block_on(async { tokio::time::timeout(patience, question).await })
            .map_err(|_| silent(&self.socket, patience))?
            .map(|answer| answer.into_inner())
            .map_err(|status| refused(what, &status))
    }
}

/// One namespace of a containerd.
pub struct Namespace<'a> {
    containerd: &'a Containerd,
    name: String,
    value: MetadataValue<Ascii>,
}

impl Namespace<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A request about things of this namespace.
    fn request<T>(&self, request: T) -> Request<T> {
        let mut request = Request::new(request);
        let metadata = request.metadata_mut();
        metadata.insert("containerd-namespace", self.value.clone());
        request
    }

    fn ask<T>(&self, what: impl Display, question: impl Future<Output = Answer<T>>) -> Result<T> {
        self.containerd
            .ask(what, self.containerd.patience, question)
    }

    /// For calls that take as long as they take; the connection's end ends them.
    fn ask_patiently<T>(
        &self,
        what: impl Display,
        question: impl Future<Output = Answer<T>>,
    ) -> Result<T> {
        self.containerd.ask(what, LONG, question)
    }
}

type Answer<T> =
    std::result::Result<containerd_client::tonic::Response<T>, containerd_client::tonic::Status>;

/// What containerd, or a shim behind it, says no with.
fn refused(what: impl Display, status: &Status) -> Error {
    let kind = match status.code() {
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::InvalidArgument => ErrorKind::InvalidInput,
        Code::FailedPrecondition => ErrorKind::WrongState,
        Code::DataLoss => ErrorKind::CorruptWorld,
        Code::ResourceExhausted => ErrorKind::NoSpace,
        Code::Aborted | Code::Cancelled => ErrorKind::Aborted,
        Code::DeadlineExceeded => ErrorKind::Timeout,
        Code::Unknown => ErrorKind::Runtime,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("{what}: {}", status.message()))
}

fn silent(socket: &Path, patience: Duration) -> Error {
    Error::new(
        ErrorKind::Timeout,
        format!(
            "containerd at {} does not answer within {patience:?}",
            socket.display()
        ),
    )
}
