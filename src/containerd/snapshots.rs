//! Snapshots: the layers under containers, and their writable tops.

use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{
    MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
};
use containerd_client::types::Mount;

use super::Namespace;
use super::containers::gone_is_fine;
use crate::error::{ErrorKind, Result};

impl Namespace<'_> {
    /// The snapshot's parent; for an image's layers that is their chain id.
    pub(super) fn parent_of(&self, snapshotter: &str, key: &str) -> Result<Option<String>> {
        let mut client = SnapshotsClient::new(self.containerd.channel.clone());
        let stat = self.request(StatSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
        });
        let what = format!("snapshot {key}");
        let answer = self.ask(what, async move { client.stat(stat).await })?;
        let parent = answer.info.map(|info| info.parent);
        Ok(parent.filter(|parent| !parent.is_empty()))
    }

    /// Whether a snapshot is there, such as that of an image's layers by their chain id.
    pub fn has_snapshot(&self, snapshotter: &str, key: &str) -> Result<bool> {
        match self.parent_of(snapshotter, key) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            found => found.map(|_| true),
        }
    }

    /// A writable snapshot `key` on top of `parent`.
    pub fn prepare_snapshot(&self, snapshotter: &str, key: &str, parent: &str) -> Result<()> {
        let mut client = SnapshotsClient::new(self.containerd.channel.clone());
        let prepare = self.request(PrepareSnapshotRequest {
            snapshotter: snapshotter.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            ..Default::default()
        });
        let what = format!("make snapshot {key}");
        self.ask(what, async move { client.prepare(prepare).await })?;
        Ok(())
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
