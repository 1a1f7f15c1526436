//! The memory of a world's processes: every distinct page once, in packs.
//!
//! CRIU leaves the pages of all processes in `pages-N.img` files. Packing cuts
//! these into pages of 4096 bytes, finds out which the store has already, writes
//! the others into new [packs](pack), and writes an [index](index) that says for
//! every page where it is. Unpacking makes the same files again, byte for byte.
//!
//! ```text
//! packer, unpacker, check   whole worlds, on all cores
//! difference                how many pages of two worlds differ
//!   ├─ plan, stale          what a packer has found so far; which packs it leaves
//!   ├─ known                which pages the packs of this host's store have
//!   ├─ index                page of an address space -> page of a pack
//!   └─ pack                 pages in compressed frames; a page can be had alone
//!        └─ frame, page
//! ```

pub mod addresses;
pub mod check;
pub mod difference;
#[cfg(test)]
mod difference_tests;
pub mod frame;
#[cfg(test)]
mod golden_tests;
pub mod images;
pub mod index;
#[cfg(test)]
mod index_tests;
pub mod index_writer;
pub mod known;
pub mod open_packs;
pub mod pack;
mod pack_files;
pub mod packer;
mod packs;
pub mod page;
pub mod place;
mod places;
mod plan;
pub mod sharing;
mod stale;
pub mod unpacker;
pub mod varint;

#[cfg(test)]
mod peak_tests;
#[cfg(test)]
mod tests;

pub use page::{PAGE_SIZE, PageHash};
pub use places::{PackOfWorld, Packed};
