//! Snapshots: the layers under containers, and their writable tops.

use std::collections::{BTreeMap, HashMap};

use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{
    CommitSnapshotRequest, Info, Kind, ListSnapshotsRequest, MountsRequest, PrepareSnapshotRequest,
    RemoveSnapshotRequest, StatSnapshotRequest, UpdateSnapshotRequest, ViewSnapshotRequest,
};
use containerd_client::types::Mount;
use prost_types::FieldMask;

use super::containers::gone_is_fine;
use super::leases::ContainerdLease;
use super::{Namespace, refused, silent};
use crate::error::{ErrorKind, Result};

/// A snapshot, as containerd describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its key or name.
    pub name: String,
    /// The one below; empty for none.
    pub parent: String,
    /// It can be built upon, and does not change.
    pub is_committed: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl Snapshot {
    fn of(info: Info) -> Snapshot {
        Snapshot {
            is_committed: info.kind() == Kind::Committed,
            name: info.name,
            parent: info.parent,
            labels: info.labels.into_iter().collect(),
        }
    }
}

impl Namespace<'_> {
    /// A snapshot; `None` when it is not there.
    pub fn snapshot(&self, snapshotter: &str, key: &str) -> Result<Option<Snapshot>> {
        let mut client = SnapshotsClient::new(self.containerd.channel.clone());
        let stat = self.request(StatSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
        });
        let what = format!("snapshot {key}");
        match self.ask(what, async move { client.stat(stat).await }) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            answer => Ok(answer?.info.map(Snapshot::of)),
        }
    }

    /// The snapshots that match a filter in containerd's words.
    pub fn snapshots(&self, snapshotter: &str, filter: &str) -> Result<Vec<Snapshot>> {
        let mut client = SnapshotsClient::new(self.containerd.channel.clone());
        let list = self.request(ListSnapshotsRequest {
            snapshotter: snapshotter.to_owned(),
            filters: vec![filter.to_owned()],
        });
        let what = format!("list the snapshots of {snapshotter}");
        let mut pieces = self.ask(&what, async move { client.list(list).await })?;
        let patience = self.containerd.patience;
        let mut found = Vec::new();
        loop {
            let next = self
                .containerd
                .runtime
                .block_on(async { tokio::time::timeout(patience, pieces.message()).await });
            let piece = next
                .map_err(|_| silent(&self.containerd.socket, patience))?
                .map_err(|status| refused(&what, &status))?;
            let Some(piece) = piece else { return Ok(found) };
            found.extend(piece.info.into_iter().map(Snapshot::of));
        }
    }

    /// Whether a snapshot is there, such as that of an image's layers by their chain id.
    pub fn has_snapshot(&self, snapshotter: &str, key: &str) -> Result<bool> {
        self.snapshot(snapshotter, key).map(|found| found.is_some())
    }

    /// A writable snapshot `key` on top of `parent`.
    pub fn prepare_snapshot(&self, snapshotter: &str, key: &str, parent: &str) -> Result<()> {
        self.prepare(snapshotter, key, parent, None).map(drop)
    }

    /// The same, kept by a lease as long as no container refers to it; and how it is mounted.
    pub(super) fn prepare(
        &self,
        snapshotter: &str,
        key: &str,
        parent: &str,
        lease: Option<&ContainerdLease<'_>>,
    ) -> Result<Vec<Mount>> {
        let mut client = SnapshotsClient::new(self.containerd.channel.clone());
        let prepare = self.leased(
            lease,
            PrepareSnapshotRequest {
                snapshotter: snapshotter.to_owned(),
                key: key.to_owned(),
                parent: parent.to_owned(),
                ..Default::default()
            },
        );
        let what = format!("make snapshot {key}");
        let answer = self.ask(what, async move { client.prepare(prepare).await })?;
        Ok(answer.mounts)
    }

    /// A read-only snapshot `key` on top of `parent`, which thereby stays.
    pub(super) fn view(
        &self,
        snapshotter: &str,
        key: &str,
        parent: &str,
        lease: &ContainerdLease<'_>,
    ) -> Result<()> {
        let mut client = SnapshotsClient::new(self.containerd.channel.clone());
        let view = self.leased(
            Some(lease),
            ViewSnapshotRequest {
                snapshotter: snapshotter.to_owned(),
                key: key.to_owned(),
                parent: parent.to_owned(),
                ..Default::default()
            },
        );
        let what = format!("hold snapshot {parent}");
        self.ask(what, async move { client.view(view).await })
            .map(drop)
    }

    /// Makes a writable snapshot one that others can stand on.
    pub(super) fn commit(
        &self,
        snapshotter: &str,
        key: &str,
        name: &str,
        labels: HashMap<String, String>,
        lease: &ContainerdLease<'_>,
    ) -> Result<()> {
        let mut client = SnapshotsClient::new(self.containerd.channel.clone());
        let commit = self.leased(
            Some(lease),
            CommitSnapshotRequest {
                snapshotter: snapshotter.to_owned(),
                name: name.to_owned(),
                key: key.to_owned(),
                labels,
            },
        );
        let what = format!("commit snapshot {name}");
        self.ask(what, async move { client.commit(commit).await })
            .map(drop)
    }

    /// Takes a label off a snapshot.
    pub(super) fn unlabel(&self, snapshotter: &str, name: &str, label: &str) -> Result<()> {
        let mut client = SnapshotsClient::new(self.containerd.channel.clone());
        let update = self.request(UpdateSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            info: Some(Info {
                name: name.to_owned(),
                ..Default::default()
            }),
            update_mask: Some(FieldMask {
                paths: vec![format!("labels.{label}")],
            }),
        });
        let what = format!("change the labels of snapshot {name}");
        gone_is_fine(self.ask(what, async move { client.update(update).await }))
    }

    /// How a snapshot is mounted.
    pub(super) fn mounts(&self, snapshotter: &str, key: &str) -> Result<Vec<Mount>> {
        let mut client = SnapshotsClient::new(self.containerd.channel.clone());
        let mounts = self.request(MountsRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
        });
        let what = format!("mounts of snapshot {key}");
        let answer = self.ask(what, async move { client.mounts(mounts).await })?;
        Ok(answer.mounts)
    }

    /// Removes a snapshot; one that is not there is no error.
    ///
    /// [`ErrorKind::WrongState`] where others stand on it.
    pub fn remove_snapshot(&self, snapshotter: &str, key: &str) -> Result<()> {
        let mut client = SnapshotsClient::new(self.containerd.channel.clone());
        let remove = self.request(RemoveSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
        });
        let what = format!("remove snapshot {key}");
        gone_is_fine(self.ask(what, async move { client.remove(remove).await }))
    }
}
