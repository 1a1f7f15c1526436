//! What differs between two worlds of a store, whichever they are.
//!
//! ```text
//! environment   variables by name, and the circumstances of the first process
//! files         what the layers say; what only the image has is the same in both
//! processes     by their ids, with their open files by descriptor
//! memory        regions by address, and how many of their pages differ
//! ```
//!
//! Nothing of the contents of memory is read, and of files nothing is kept, so
//! memory grows with what differs, and only up to a bound: beyond it
//! differences are counted and no longer listed.

mod environment;
mod files;
mod listing;
mod memory;
mod open_files;
mod processes;
mod regions;
#[cfg(test)]
mod tests;
mod world;

pub use environment::{EnvironmentDiff, Setting, Variable};
pub use files::{FileChange, FileView, FilesDiff};
pub use listing::{Change, Listing};
pub use memory::{MemoryDiff, RegionChange, RegionView};
pub use open_files::{OpenFileChange, OpenFileView};
pub use processes::{ProcessChange, ProcessView, ProcessesDiff};
pub use world::WorldView;

use serde::Serialize;

use crate::Result;
use crate::digest::Digest;
use crate::store::Lease;
use crate::world::artifact::OpenedWorld;

/// What to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sections {
    /// The environment of the first process.
    pub environment: bool,
    /// Files of the container's own layer.
    pub files: bool,
    /// Processes and their open files.
    pub processes: bool,
    /// Memory of the processes.
    pub memory: bool,
}

/// What differs. A section that was not asked for is not there.
#[derive(Debug, Serialize)]
pub struct Diff {
    /// The first world.
    pub before: WorldView,
    /// The second.
    pub after: WorldView,
    /// Whether anything differs in the sections that are there.
    pub differs: bool,
    /// Environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentDiff>,
    /// Files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesDiff>,
    /// Processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes: Option<ProcessesDiff>,
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryDiff>,
}

/// Compares two worlds, which `lease` must hold.
///
/// # Errors
/// `CorruptWorld` or `ForeignWorld` where one of them is damaged or cannot be read here.
pub fn diff(lease: &Lease, before: &Digest, after: &Digest, sections: Sections) -> Result<Diff> {
    let store = lease.store();
    let old = OpenedWorld::open(store, before)?;
    let new = OpenedWorld::open(store, after)?;
    let mut diff = Diff {
        before: WorldView::of(&old),
        after: WorldView::of(&new),
        differs: false,
        environment: None,
        files: None,
        processes: None,
        memory: None,
    };
    if sections.environment {
        let compared = environment::compare(&old.environment()?, &new.environment()?);
        diff.differs |= compared.differs();
        diff.environment = Some(compared);
    }
    if sections.files {
        let compared = files::compare(&old, &new)?;
        diff.differs |= compared.list.differs();
        diff.files = Some(compared);
    }
    if sections.processes || sections.memory {
        let (was, is) = (old.processes()?, new.processes()?);
        if sections.processes {
            let compared = processes::compare(&was, &is);
            diff.differs |= compared.differs();
            diff.processes = Some(compared);
        }
        if sections.memory {
            let pages = (&old.pages()?, &new.pages()?);
            let compared = memory::compare((&was, pages.0), (&is, pages.1), store)?;
            diff.differs |= compared.list.differs();
            diff.memory = Some(compared);
        }
    }
    Ok(diff)
}
