//! Talking to containerd over its socket, from a command that otherwise never waits.

use std::future::Future;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_client::services::v1::introspection_client::IntrospectionClient;
use containerd_client::services::v1::version_client::VersionClient;
use containerd_client::services::v1::{Plugin, PluginsRequest, VersionResponse};
use containerd_client::tonic::transport::Channel;
use tokio::runtime::{Builder, Runtime};

use crate::error::{Error, ErrorKind, IoContext, Result};

/// How long containerd may take to answer one question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection to a running containerd.
pub(super) struct Containerd {
    socket: PathBuf,
    runtime: Runtime,
    channel: Channel,
}

impl Containerd {
    /// Connects; fails with [`ErrorKind::Unavailable`] when nobody answers.
    pub fn connect(socket: &Path) -> Result<Containerd> {
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
                tokio::time::timeout(ANSWER_TIMEOUT, containerd_client::connect(socket)).await
            })
            .map_err(|_| silent(socket))?
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

    fn ask<T>(&self, what: &str, question: impl Future<Output = Answer<T>>) -> Result<T> {
        self.runtime
            .block_on(async { tokio::time::timeout(ANSWER_TIMEOUT, question).await })
            .map_err(|_| silent(&self.socket))?
            .map(|answer| answer.into_inner())
            .map_err(|status| {
                Error::caused_by(
                    ErrorKind::Unavailable,
                    format!("ask containerd for its {what}"),
                    status,
                )
            })
    }
}

type Answer<T> =
    std::result::Result<containerd_client::tonic::Response<T>, containerd_client::tonic::Status>;

fn silent(socket: &Path) -> Error {
    Error::new(
        ErrorKind::Timeout,
        format!(
            "containerd at {} does not answer within {ANSWER_TIMEOUT:?}",
            socket.display()
        ),
    )
}
