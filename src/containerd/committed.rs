//! The files of a world as one snapshot that all siblings of a fork stand on.
//!
//! It is made once: under a key of its own, with the world's `rootfs.tar` in its writable
//! layer, and then committed under a name that only this content can have. The commit is
//! atomic, so a snapshot of that name is whole, and of two forks that make it at once the
//! second throws its own away. What a killed fork leaves goes with its containerd lease.
//!
//! The name is [`name`] of the archive's digest, of the layers below, and of the host's boot:
//! nothing is synced to the disk, and what was not when the host went down must not be
//! believed.

use std::collections::HashMap;
use std::fs::File;

use super::Namespace;
use super::leases::ContainerdLease;
use super::snapshots::Snapshot;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::runtime::RootfsMountRequest;
use crate::world::fork;
use crate::world::rootfs::{self, RootfsMount};

/// Label of such a snapshot: digest of the `rootfs.tar` that is in it.
const ROOTFS_LABEL: &str = "dev.worldshim.rootfs";
/// All names begin so.
const PREFIX: &str = "worldshim-";
/// containerd sweeps only what it is not told to keep.
const KEEP_LABEL: &str = "containerd.io/gc.root";
/// How often one that vanishes is made again.
const ATTEMPTS: usize = 3;

/// A world's files, and what they stand on.
pub struct Files<'a> {
    /// The fork that they are for.
    pub fork: &'a str,
    /// containerd's snapshotter.
    pub snapshotter: &'a str,
    /// Chain id of the layers below.
    pub chain_id: &'a str,
    /// Digest of `rootfs.tar`.
    pub digest: Digest,
    /// Opens `rootfs.tar`.
    pub open: &'a dyn Fn() -> Result<File>,
    /// What may be in it.
    pub policy: &'a rootfs::Policy,
}

/// A committed snapshot that stays at least as long as this value.
pub struct Held<'a> {
    /// Its name.
    pub name: String,
    /// It was made just now.
    pub made: bool,
    namespace: &'a Namespace<'a>,
    snapshotter: String,
    /// A view on it: containerd removes nothing that another stands on.
    view: String,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let removed = self
            .namespace
            .remove_snapshot(&self.snapshotter, &self.view);
        if let Err(error) = removed {
            tracing::debug!("{error}");
        }
    }
}

/// The key of what holds a snapshot for a fork.
fn held_by(fork: &str) -> String {
    format!("{PREFIX}held-{fork}")
}

/// The id of containerd's lease for a fork.
pub fn lease_of(fork: &str) -> String {
    format!("{PREFIX}fork-{fork}")
}

/// The name of the snapshot of these files.
pub fn name(rootfs: &Digest, chain_id: &str) -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let boot = std::fs::read_to_string(path).context(|| format!("read {path}"))?;
    let text = format!("{rootfs}\n{chain_id}\n{}\n", boot.trim());
    Ok(format!("{PREFIX}{}", Digest::of(text.as_bytes()).hex()))
}

impl Namespace<'_> {
    /// The snapshot of a world's files, which is made where it is not there yet; `None` where
    /// the snapshotter copies layers instead of putting one over the other.
    pub fn committed<'a>(
        &'a self,
        files: &Files<'_>,
        lease: &ContainerdLease<'_>,
    ) -> Result<Option<Held<'a>>> {
        let mut made = false;
        for _ in 0..ATTEMPTS {
            let name = name(&files.digest, files.chain_id)?;
            let suffix = fork::new_id()?;
            if self.snapshot(files.snapshotter, &name)?.is_none() {
                let key = format!("{name}-{suffix}");
                match self.make(files, &name, &key, lease) {
                    Ok(true) => made = true,
                    Ok(false) => return self.drop_unfinished(files, &key).map(|()| None),
                    // Another fork was faster.
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                        self.drop_unfinished(files, &key)?;
                    }
                    Err(error) => {
                        let _ = self.drop_unfinished(files, &key);
                        return Err(error);
                    }
                }
            }
            let view = held_by(files.fork);
            match self.view(files.snapshotter, &view, &name, lease) {
                // Swept between two calls: once more.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                viewed => viewed?,
            }
            return Ok(Some(Held {
                name,
                made,
                namespace: self,
                snapshotter: files.snapshotter.to_owned(),
                view,
            }));
        }
        let text = "the snapshot of the world's files is removed whenever it is made";
        Err(Error::new(ErrorKind::Aborted, text))
    }

    /// A writable snapshot as a container's rootfs.
    pub fn prepare_rootfs(
        &self,
        snapshotter: &str,
        key: &str,
        parent: &str,
        lease: &ContainerdLease<'_>,
    ) -> Result<RootfsMount> {
        let mounts = self.prepare(snapshotter, key, parent, Some(lease))?;
        let mounts: Vec<_> = mounts
            .into_iter()
            .map(|mount| RootfsMountRequest {
                kind: mount.r#type,
                source: mount.source,
                options: mount.options,
                target: mount.target,
            })
            .collect();
        RootfsMount::parse(&mounts)
    }

    /// False where the snapshotter does not suit.
    fn make(
        &self,
        files: &Files<'_>,
        name: &str,
        key: &str,
        lease: &ContainerdLease<'_>,
    ) -> Result<bool> {
        let mount = self.prepare_rootfs(files.snapshotter, key, files.chain_id, lease)?;
        let (RootfsMount::Overlay { .. }, Some(upper)) = (&mount, mount.upper()?) else {
            return Ok(false);
        };
        rootfs::bring_back(&upper, (files.open)()?, files.policy, None)?;
        let labels = HashMap::from([
            (ROOTFS_LABEL.to_owned(), files.digest.to_string()),
            (
                KEEP_LABEL.to_owned(),
                fork::in_text(time::OffsetDateTime::now_utc()),
            ),
        ]);
        self.commit(files.snapshotter, key, name, labels, lease)?;
        Ok(true)
    }

    fn drop_unfinished(&self, files: &Files<'_>, key: &str) -> Result<()> {
        self.remove_snapshot(files.snapshotter, key)
    }

    /// Removes what a fork that was killed still holds.
    pub fn let_go(&self, snapshotter: &str, fork: &str) -> Result<()> {
        self.remove_snapshot(snapshotter, &held_by(fork))?;
        self.drop_lease(&lease_of(fork))
    }

    /// Removes one of our snapshots, unless others stand on it. True when it is gone.
    pub fn remove_if_unused(&self, snapshotter: &str, name: &str) -> Result<bool> {
        if !name.starts_with(PREFIX) {
            return Ok(false);
        }
        match self.remove_snapshot(snapshotter, name) {
            Err(error) if error.kind() == ErrorKind::WrongState => {
                self.leave_to_containerd(snapshotter, name)
            }
            removed => removed.map(|()| true),
        }
    }

    /// containerd's own sweep removes what stood on a snapshot without telling that snapshot,
    /// which can never be removed then, but by a sweep, too. False where it is in use after all.
    fn leave_to_containerd(&self, snapshotter: &str, name: &str) -> Result<bool> {
        if self.is_stood_on(snapshotter, name)? {
            return Ok(false);
        }
        self.unlabel(snapshotter, name, KEEP_LABEL)?;
        self.sweep(&format!("{PREFIX}sweep-{}", fork::new_id()?))?;
        self.has_snapshot(snapshotter, name).map(|there| !there)
    }

    fn is_stood_on(&self, snapshotter: &str, name: &str) -> Result<bool> {
        let filter = format!("parent==\"{name}\"");
        Ok(!self.snapshots(snapshotter, &filter)?.is_empty())
    }

    /// Removes all of our snapshots that nothing stands on; returns their names.
    pub fn remove_unused(&self, snapshotter: &str, dry_run: bool) -> Result<Vec<String>> {
        let filter = format!("labels.\"{ROOTFS_LABEL}\"");
        let mut removed = Vec::new();
        for snapshot in self.snapshots(snapshotter, &filter)? {
            if !snapshot.is_committed || !snapshot.name.starts_with(PREFIX) {
                continue;
            }
            if self.is_stood_on(snapshotter, &snapshot.name)? {
                continue;
            }
            // It fails where a fork began to use it just now.
            if !dry_run && !self.remove_if_unused(snapshotter, &snapshot.name)? {
                continue;
            }
            removed.push(snapshot.name);
        }
        Ok(removed)
    }
}

/// The files that a snapshot holds, where it is one of ours.
pub(super) fn rootfs_in(snapshot: &Snapshot) -> Option<Digest> {
    if !snapshot.is_committed || !snapshot.name.starts_with(PREFIX) {
        return None;
    }
    snapshot.labels.get(ROOTFS_LABEL)?.parse().ok()
}
