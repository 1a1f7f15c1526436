//! Folders beside the blobs, for world directories on their way in or out.
//!
//! A workspace is `.worldshim/work/NAME`, locked by its owner as long as it
//! lives, removed when dropped; what a killed owner left is unlocked, and goes
//! with the next [`Store::gc`]. One that holds the only copy of a state is in
//! `.worldshim/rescued` instead, where nothing but its owner's success removes it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use super::layout::{PRIVATE, RESCUED, Store, WORK};
use super::temporary::random_name;
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

/// A folder of ours, empty at first.
#[derive(Debug)]
pub struct Workspace {
    path: PathBuf,
    /// Removed when dropped.
    owned: bool,
    _lock: OwnedFd,
}

impl Store {
    /// A new folder for `purpose`, a word for people.
    pub fn workspace(&self, purpose: &str) -> Result<Workspace> {
        self.make_folder(WORK, purpose, true)
    }

    /// A new folder for the only copy of something: it stays, whatever happens, until
    /// [`Workspace::remove`].
    pub fn lasting_workspace(&self, purpose: &str) -> Result<Workspace> {
        self.make_folder(RESCUED, purpose, false)
    }

    fn make_folder(&self, parent: &str, purpose: &str, owned: bool) -> Result<Workspace> {
        // No sweep may see it before it is locked.
        let _lock = self.lock_shared()?;
        let parent = self.path().join(PRIVATE).join(parent);
        make_private(&parent)?;
        let path = parent.join(format!("{purpose}-{}", random_name()?));
        make_private(&path)?;
        let lock = try_lock(&path)?
            .ok_or_else(|| Error::new(ErrorKind::Internal, "a new folder is locked by another"))?;
        Ok(Workspace {
            path,
            owned,
            _lock: lock,
        })
    }

    /// Removes the folders of dead owners; returns how many. The caller holds the store's
    /// exclusive lock.
    pub(super) fn sweep_workspaces(&self, dry_run: bool) -> Result<u64> {
        let work = self.path().join(PRIVATE).join(WORK);
        let entries = match std::fs::read_dir(&work) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            entries => entries.context(|| format!("list {}", work.display()))?,
        };
        let mut swept = 0;
        for entry in entries {
            let path = entry.context(|| format!("list {}", work.display()))?.path();
            if try_lock(&path)?.is_some() {
                swept += 1;
                if !dry_run {
                    std::fs::remove_dir_all(&path)
                        .context(|| format!("remove {}", path.display()))?;
                }
            }
        }
        Ok(swept)
    }

    /// The folders that hold what may be the only copy of a state.
    pub fn rescued(&self) -> Result<Vec<PathBuf>> {
        let folder = self.path().join(PRIVATE).join(RESCUED);
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.context(|| format!("list {}", folder.display()))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            found.push(
                entry
                    .context(|| format!("list {}", folder.display()))?
                    .path(),
            );
        }
        found.sort();
        Ok(found)
    }
}

impl Store {
    /// The rescued folder that `path` is in, if it is in one and its owner is dead. It stays
    /// until [`Workspace::remove`].
    ///
    /// [`ErrorKind::WrongState`] where its owner lives.
    pub fn rescued_around(&self, path: &Path) -> Result<Option<Workspace>> {
        let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let inside = whole(path);
        let rescued = self.rescued()?;
        let Some(path) = rescued.iter().find(|it| inside.starts_with(whole(it))) else {
            return Ok(None);
        };
        match try_lock(path)? {
            Some(lock) => Ok(Some(Workspace {
                path: path.clone(),
                owned: false,
                _lock: lock,
            })),
            None => Err(Error::new(
                ErrorKind::WrongState,
                format!("{} is still being worked on: wait for it", path.display()),
            )),
        }
    }
}

impl Workspace {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the folder with all that is in it.
    pub fn remove(mut self) -> Result<()> {
        self.owned = false;
        std::fs::remove_dir_all(&self.path).context(|| format!("remove {}", self.path.display()))
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if self.owned
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            log::warn!("{} stays: {error}", self.path.display());
        }
    }
}

pub(super) fn make_private(path: &Path) -> Result<()> {
    match rustix::fs::mkdir(path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        made => made.context(|| format!("make {}", path.display())),
    }
}

/// `None` where another has it.
fn try_lock(path: &Path) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, Mode::empty())
        .context(|| format!("open {}", path.display()))?;
    match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(folder)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error).context(|| format!("lock {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::GcOptions;

    #[test]
    fn a_workspace_goes_with_its_owner_or_with_the_next_sweep() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let kept = store.workspace("restore").unwrap();
        std::fs::write(kept.path().join("file"), "x").unwrap();
        let dropped = store.workspace("restore").unwrap();
        let gone = dropped.path().to_owned();
        drop(dropped);
        assert!(!gone.exists());
        // Left by a dead one.
        let orphan = store.path().join(PRIVATE).join(WORK).join("restore-0");
        std::fs::create_dir(&orphan).unwrap();
        std::fs::write(orphan.join("file"), "x").unwrap();
        let lasting = store.lasting_workspace("checkpoint").unwrap();
        let lasting_path = lasting.path().to_owned();
        drop(lasting);
        store.gc(&GcOptions::default()).unwrap();
        assert!(!orphan.exists());
        assert!(kept.path().join("file").exists());
        assert_eq!(store.rescued().unwrap(), [lasting_path]);
        let report = Store::fsck(store.path(), &|_| {}).unwrap();
        assert!(report.findings.is_empty(), "{:?}", report.findings);
    }
}
