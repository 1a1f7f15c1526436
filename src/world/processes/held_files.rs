//! The files that the processes of a dump hold open, or share as memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::criu::dumped::{self, Backing, Images};
use crate::error::{IoContext, Result};

/// The paths of these files, as the container sees them.
pub fn held_files(images_dir: &Path) -> Result<BTreeSet<Arc<[u8]>>> {
    let mut images = BTreeMap::new();
    let list = || format!("list {}", images_dir.display());
    for entry in std::fs::read_dir(images_dir).context(list)? {
        let entry = entry.context(list)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if dumped::is_needed(&name) {
            let path = entry.path();
            let bytes = std::fs::read(&path).context(|| format!("read {}", path.display()))?;
            images.insert(name, bytes);
        }
    }
    let mut held = BTreeSet::new();
    for process in dumped::processes(&Images(images))? {
        let open = process.files.iter().filter(|open| open.file.kind == "file");
        held.extend(open.map(|open| open.file.name.clone()));
        let shared = |region: &&dumped::Region| {
            region.shared && region.backing == Backing::Elsewhere && region.name.starts_with(b"/")
        };
        let mapped = process.regions.iter().filter(shared);
        held.extend(mapped.map(|region| region.name.clone()));
    }
    Ok(held)
}
