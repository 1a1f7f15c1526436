//! The store: an OCI image layout on disk, safe for many processes at once.
//!
//! ```text
//! oci-layout            written last when a store is made
//! index.json            which worlds there are, and their names
//! blobs/sha256/HEX      content; a file with such a name is complete
//! .worldshim/lock       flock: shared to add, exclusive to change the index or to sweep
//! .worldshim/leases/    what living processes rely on; each locked by its owner
//! .worldshim/tmp/       what is being written; each locked by its writer
//! .worldshim/pages/     belongs to the memory packer
//! .worldshim/work/      world directories on their way in or out; each locked by its owner
//! .worldshim/rescued/   world directories that may be the only copy of a state
//! .worldshim/working-sets/  what page servers remember of worlds
//! .worldshim/damaged/   blobs that were found damaged and set aside
//! ```
//!
//! Invariants. A blob is on the disk before it gets its name. `index.json` is
//! replaced by a rename, after every blob that its worlds need is on the disk.
//! Nothing relies on a blob that the index does not reach without holding it in
//! a [`Lease`], written down before the blob's presence is checked; the sweep
//! of [`Store::gc`] excludes both steps. Locks end with their processes, so that
//! what the dead left is known and goes with the next sweep. Directories have
//! mode 0700, files 0600: a world is as secret as the memory in it.

mod blob;
mod contents;
mod damaged;
mod document;
mod finding;
mod folder;
mod fsck;
mod gc;
mod index;
mod layout;
mod lease;
mod lock;
mod partial;
mod publish;
mod reach;
mod reference;
mod temporary;
mod working_sets;
mod workspace;

pub use blob::{Blob, BlobWriter, Written};
pub use contents::{Entry, Sizes, World};
pub use document::{Document, MAX_DOCUMENT};
pub use finding::{Fault, Finding, Severity};
pub use fsck::Report;
pub use gc::{GcOptions, Swept};
pub use layout::{DEFAULT_PATH, Store};
pub use lease::Lease;
pub use partial::PartialBlob;
pub use publish::{Published, Removed};
pub use reference::{Reference, WorldName};
pub use workspace::Workspace;
