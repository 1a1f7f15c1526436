//! containerd's leases: what keeps a thing that nothing refers to yet from its sweep.

use std::collections::HashMap;
use std::time::Duration;

use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::{CreateRequest, DeleteRequest};
use containerd_client::tonic::Request;
use time::OffsetDateTime;

use super::Namespace;
use super::containers::gone_is_fine;
use crate::error::Result;
use crate::world::fork::in_text;

/// Label with the time after which containerd drops a lease whose owner is dead.
const EXPIRES: &str = "containerd.io/gc.expire";

/// A lease, dropped with this value; by containerd itself where its owner was killed.
pub struct ContainerdLease<'a> {
    namespace: &'a Namespace<'a>,
    id: String,
}

impl Namespace<'_> {
    /// A new lease that lasts for `patience` at most.
    pub fn lease(&self, id: &str, patience: Duration) -> Result<ContainerdLease<'_>> {
        let expires = in_text(OffsetDateTime::now_utc() + patience);
        let mut client = LeasesClient::new(self.containerd.channel.clone());
        let create = self.request(CreateRequest {
            id: id.to_owned(),
            labels: HashMap::from([(EXPIRES.to_owned(), expires)]),
        });
        self.ask("make a lease", async move { client.create(create).await })?;
        Ok(ContainerdLease {
            namespace: self,
            id: id.to_owned(),
        })
    }

    /// A request whose results a lease holds.
    pub(super) fn leased<T>(&self, lease: Option<&ContainerdLease<'_>>, request: T) -> Request<T> {
        let mut request = self.request(request);
        if let Some(id) = lease.and_then(|lease| lease.id.parse().ok()) {
            request.metadata_mut().insert("containerd-lease", id);
        }
        request
    }
}

impl Namespace<'_> {
    /// Drops a lease by its id; one that is not there is no error.
    pub(super) fn drop_lease(&self, id: &str) -> Result<()> {
        self.end_lease(id, false)
    }

    /// Has containerd sweep, and waits for it: what ends a lease may ask for that.
    pub(super) fn sweep(&self, id: &str) -> Result<()> {
        std::mem::forget(self.lease(id, Duration::from_secs(60))?);
        self.end_lease(id, true)
    }

    fn end_lease(&self, id: &str, sync: bool) -> Result<()> {
        let mut client = LeasesClient::new(self.containerd.channel.clone());
        let delete = self.request(DeleteRequest {
            id: id.to_owned(),
            sync,
        });
        gone_is_fine(self.ask("drop a lease", async move { client.delete(delete).await }))
    }
}

impl Drop for ContainerdLease<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.namespace.drop_lease(&self.id) {
            tracing::debug!("{error}");
        }
    }
}
