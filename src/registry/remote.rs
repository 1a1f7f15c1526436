//! A connection to a registry, from a command that otherwise never waits.

use std::fs::File;
use std::future::Future;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use oci_client::RegistryOperation;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use super::credentials;
use super::failure::{Failure, Patience};
use super::reference::RemoteReference;
use super::session::{Session, Way};
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

/// Where docker has the certificates of registries that the system does not trust.
const CERTIFICATES: &str = "/etc/docker/certs.d";
/// Most bytes of one of them.
const MAX_CERTIFICATE: u64 = 1 << 20;

/// Blobs on their way at a time.
const PARALLEL: usize = 4;

/// How a registry may be reached.
#[derive(Debug, Clone, Copy, Default)]
pub struct Access {
    /// By HTTP, unencrypted and with nothing that says who answers.
    pub plain_http: bool,
}

/// A repository of a registry, for pushing or for pulling.
pub struct Remote {
    runtime: Runtime,
    pub(super) session: Arc<Session>,
    pub(super) place: RemoteReference,
}

impl Remote {
    /// Connects for pushing a world to `place`, which needs a tag.
    ///
    /// [`ErrorKind::Unavailable`] where nobody answers, [`ErrorKind::HostUnfit`] where the
    /// registry does not take the credentials that are in docker's files.
    pub fn for_push(place: &RemoteReference, access: &Access) -> Result<Remote> {
        if place.as_oci().tag().is_none() {
            let text = format!("{place} needs a tag: a world is pushed to HOST/REPOSITORY:TAG");
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        Self::connect(place, access, RegistryOperation::Push)
    }

    /// Connects for pulling the world at `place`. Errors as [`Remote::for_push`].
    pub fn for_pull(place: &RemoteReference, access: &Access) -> Result<Remote> {
        Self::connect(place, access, RegistryOperation::Pull)
    }

    fn connect(
        place: &RemoteReference,
        access: &Access,
        operation: RegistryOperation,
    ) -> Result<Remote> {
        let registry = place.registry();
        let doing = format!("reach the registry {registry}");
        // Programs that have passwords are run here, before there are threads.
        let credentials = credentials::find(registry)?;
        let way = Way {
            plain_http: access.plain_http,
            roots: certificates(Path::new(CERTIFICATES), registry)?,
        };
        let session = Session::new(place.as_oci().clone(), credentials, operation, &way)
            .map_err(|failure| failure.into_error(&doing, registry))?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(PARALLEL)
            .thread_name("registry")
            .enable_all()
            .build()
            .context(|| "start an I/O loop")?;
        let remote = Remote {
            runtime,
            session: Arc::new(session),
            place: place.clone(),
        };
        remote.keep_trying(&doing, Patience::short(), || remote.session.login())?;
        Ok(remote)
    }

    /// Does one thing, with a few tries where the network fails.
    pub(super) fn insist<T, F>(&self, doing: &str, attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        self.keep_trying(doing, Patience::default(), attempt)
    }

    fn keep_trying<T, F>(
        &self,
        doing: &str,
        mut patience: Patience,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let tried = self.runtime.block_on(async {
            loop {
                match attempt().await {
                    Ok(done) => return Ok(done),
                    Err(failure) => self.session.bear(failure, &mut patience).await?,
                }
            }
        });
        tried.map_err(|failure: Failure| self.blame(failure, doing))
    }

    pub(super) fn blame(&self, failure: Failure, doing: &str) -> Error {
        failure.into_error(doing, self.place.registry())
    }

    /// Does many things, a few at a time; the first that fails ends all.
    pub(super) fn all<T, F>(&self, tasks: impl IntoIterator<Item = F>) -> Result<Vec<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let mut waiting = tasks.into_iter();
        let mut done = Vec::new();
        self.runtime.block_on(async {
            let mut running = JoinSet::new();
            loop {
                while running.len() < PARALLEL
                    && let Some(task) = waiting.next()
                {
                    running.spawn(task);
                }
                match running.join_next().await {
                    None => return Ok(done),
                    Some(Ok(Ok(result))) => done.push(result),
                    Some(Ok(Err(error))) => {
                        // What is in the middle of a write ends it first.
                        running.shutdown().await;
                        return Err(error);
                    }
                    Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
                }
            }
        })
    }
}

/// The certificates in the folder's `HOST[:PORT]`, in PEM.
fn certificates(folder: &Path, registry: &str) -> Result<Vec<Vec<u8>>> {
    let folder = folder.join(registry);
    let what = |path: &Path| format!("read {}", path.display());
    let entries = match std::fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.context(|| what(&folder))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.context(|| what(&folder))?.path();
        if path.extension().is_some_and(|extension| extension == "crt") {
            let mut bytes = Vec::new();
            File::open(&path)
                .and_then(|file| file.take(MAX_CERTIFICATE).read_to_end(&mut bytes))
                .context(|| what(&path))?;
            found.push(bytes);
        }
    }
    Ok(found)
}
