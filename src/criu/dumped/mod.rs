//! What the images of a dump say of its processes: the tree, the memory maps
//! and the open files.
//!
//! Images are taken by their names, as bytes in memory, and may be anything:
//! what does not fit together is an error, what is of a kind unknown here is
//! told as such. Nothing of the contents of memory is read.

mod file;
mod files;
mod image;
mod message;
mod process;
mod region;
mod socket;
#[cfg(test)]
mod tests;

pub use file::File;
pub use image::Images;
pub use process::{OpenFile, Process, State};
pub use region::{Backing, Region, wiped_on_fork};

use super::images::{self, Kind};
use crate::Result;
use files::Files;

/// Images of which all of [`processes`] is made; others need not be there.
pub fn is_needed(name: &str) -> bool {
    const PREFIXES: [&str; 5] = ["core-", "fdinfo-", "fs-", "ids-", "mm-"];
    const NAMES: [&str; 4] = ["files.img", "inventory.img", "memfd.img", "pstree.img"];
    NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The processes of a dump, the root first.
///
/// # Errors
/// `CorruptWorld` when an image that must be there is missing or damaged;
/// `ForeignWorld` for a format that CRIU 4 does not write.
pub fn processes(images: &Images) -> Result<Vec<Process>> {
    images::check_inventory(images.need(Kind::Inventory.file_name())?)?;
    let tree = images::tree(images.need(Kind::Tree.file_name())?)?;
    let files = Files::read(images)?;
    tree.iter()
        .map(|entry| process::read(images, &files, entry))
        .collect()
}
