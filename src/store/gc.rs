//! The sweep: removes what neither the index nor a living lease needs.
//!
//! Invariant: nothing is removed unless everything needed is known. A damaged
//! index, a damaged manifest, an unreadable lease each end it before it begins.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use serde::Serialize;

use super::folder;
use super::index::{Index, name_of};
use super::layout::Store;
use super::lock::{self, Exclusive};
use super::partial::is_partial;
use super::reach::Reach;
use crate::Result;
use crate::digest::Digest;

/// What to remove beside what nobody can reach.
#[derive(Debug, Clone)]
pub struct GcOptions {
    /// Only tell what would be removed.
    pub dry_run: bool,
    /// Remove the worlds without names first.
    pub drop_untagged: bool,
    /// Remove what was fetched in part and not gone on with for this long.
    pub keep_partial: Duration,
}

impl Default for GcOptions {
    fn default() -> Self {
        GcOptions {
            dry_run: false,
            drop_untagged: false,
            keep_partial: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// What a sweep removed (or would), and what it kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Swept {
    /// Worlds without names that were dropped.
    pub worlds: Vec<Digest>,
    /// Blobs removed.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs kept.
    pub kept_blobs: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// Temporary files and folders of dead processes, and old partial blobs.
    pub temporaries: u64,
    /// The files' bytes.
    pub temporary_bytes: u64,
    /// Leases of dead processes.
    pub leases: u64,
}

impl Store {
    /// Removes all blobs that neither the index nor a living lease reaches, and what dead
    /// processes left. Nothing else can be added meanwhile.
    ///
    /// [`ErrorKind::CorruptWorld`](crate::ErrorKind::CorruptWorld) where it cannot be known
    /// what is needed; then nothing is removed.
    pub fn gc(&self, options: &GcOptions) -> Result<Swept> {
        let lock = self.lock_exclusive()?;
        self.sweep(options, &lock)
            .map_err(|error| self.blame(error))
    }

    fn sweep(&self, options: &GcOptions, lock: &Exclusive) -> Result<Swept> {
        let mut swept = Swept::default();
        let mut index = self.index()?;
        if options.drop_untagged {
            swept.worlds = drop_untagged(&mut index);
        }
        let (leased, dead) = self.leased(lock)?;
        let needed = self.needed(&index, leased)?;
        // From here on things are removed.
        if !swept.worlds.is_empty() && !options.dry_run {
            self.write_index(&index, lock)?;
        }
        swept.leases = dead.len() as u64;
        if !options.dry_run {
            for name in &dead {
                folder::remove(self.leases(), name)?;
            }
        }
        self.sweep_blobs(&needed, options, &mut swept)?;
        self.sweep_temporaries(options, lock, &mut swept)?;
        swept.temporaries += self.sweep_workspaces(options.dry_run)?;
        self.sweep_working_sets(options.dry_run)?;
        Ok(swept)
    }

    fn needed(&self, index: &Index, leased: BTreeSet<Digest>) -> Result<BTreeSet<Digest>> {
        let mut needed = BTreeSet::new();
        for entry in &index.entries {
            let reach = Reach::of(self, entry)?;
            reach
                .must_be_sound(super::document::digest_of(entry).ok())
                .map_err(|error| error.within("gc removes nothing while a world is damaged"))?;
            needed.extend(reach.blobs.into_keys());
        }
        for digest in leased {
            needed.extend(Reach::of_held(self, digest).blobs.into_keys());
        }
        Ok(needed)
    }

    fn sweep_blobs(
        &self,
        needed: &BTreeSet<Digest>,
        options: &GcOptions,
        swept: &mut Swept,
    ) -> Result<()> {
        for name in folder::names(self.blobs())? {
            let Ok(digest) = format!("sha256:{name}").parse::<Digest>() else {
                continue; // None of ours: fsck tells.
            };
            let Some(stat) = folder::stat(self.blobs(), &name)? else {
                continue;
            };
            let (count, bytes) = match needed.contains(&digest) {
                true => (&mut swept.kept_blobs, &mut swept.kept_bytes),
                false => (&mut swept.blobs, &mut swept.bytes),
            };
            *count += 1;
            *bytes += stat.st_size as u64;
            if !needed.contains(&digest) && !options.dry_run {
                folder::remove(self.blobs(), &name)?;
            }
        }
        Ok(())
    }

    fn sweep_temporaries(
        &self,
        options: &GcOptions,
        lock: &Exclusive,
        swept: &mut Swept,
    ) -> Result<()> {
        for name in folder::names(self.tmp())? {
            let opened = folder::open_file_with(self.tmp(), &name, OFlags::RDONLY)?;
            let Some((file, stat)) = opened else {
                continue;
            };
            let fresh = || {
                let changed = Duration::from_secs(stat.st_mtime.max(0) as u64);
                let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + changed);
                age.map_or(true, |age| age < options.keep_partial)
            };
            if !lock::is_orphan(&file, lock)? || is_partial(&name).is_some() && fresh() {
                continue;
            }
            swept.temporaries += 1;
            swept.temporary_bytes += stat.st_size as u64;
            if !options.dry_run {
                folder::remove(self.tmp(), &name)?;
            }
        }
        Ok(())
    }
}

fn drop_untagged(index: &mut Index) -> Vec<Digest> {
    let worlds = index.worlds().into_iter();
    let untagged = worlds.filter(|(_, _, names)| names.is_empty());
    let dropped: Vec<_> = untagged.map(|(digest, ..)| digest).collect();
    index.entries.retain(|entry| name_of(entry).is_some());
    dropped
}
