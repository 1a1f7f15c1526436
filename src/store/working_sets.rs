//! What page servers remember of worlds: `.worldshim/working-sets/HEX`, advice that may be
//! lost. Those of worlds that are gone go with the next [`Store::gc`].

use std::path::PathBuf;

use super::layout::{PRIVATE, Store, WORKING_SETS};
use crate::Result;
use crate::digest::Digest;
use crate::error::IoContext;

impl Store {
    /// Where that of a world is, if there is one. The folder is made.
    pub fn working_set(&self, world: &Digest) -> Result<PathBuf> {
        let folder = self.path().join(PRIVATE).join(WORKING_SETS);
        super::workspace::make_private(&folder)?;
        Ok(folder.join(hex::encode(world.as_bytes())))
    }

    /// Removes those of worlds whose manifests are gone. The caller holds the store's
    /// exclusive lock.
    pub(super) fn sweep_working_sets(&self, dry_run: bool) -> Result<()> {
        let folder = self.path().join(PRIVATE).join(WORKING_SETS);
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries.context(|| format!("list {}", folder.display()))?,
        };
        for entry in entries {
            let entry = entry.context(|| format!("list {}", folder.display()))?;
            let name = entry.file_name();
            let world = name.to_str().map(|name| format!("sha256:{name}").parse());
            let kept = match world {
                Some(Ok(world)) => self.blob_size(&world)?.is_some(),
                _ => false,
            };
            if !kept && !dry_run {
                let path = entry.path();
                std::fs::remove_file(&path).context(|| format!("remove {}", path.display()))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::GcOptions;

    #[test]
    fn they_go_with_their_worlds() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let path = store.working_set(&Digest::of(b"world")).unwrap();
        std::fs::write(&path, "").unwrap();
        let report = Store::fsck(store.path(), &|_| {}).unwrap();
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        store.gc(&GcOptions::default()).unwrap();
        assert!(!path.exists());
    }
}
