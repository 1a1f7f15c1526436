//! `rootfs.tar` as OCI image layers, each a world's own or shared with its parent.
//!
//! # Format
//!
//! Every layer is a zstd stream of a tar in the form of `rootfs.tar` (see the
//! parent module): sorted, the root first, every parent with an entry.
//!
//! The first layer, the *full* one, is `rootfs.tar` itself. A *delta* layer
//! says what to change in the layers before it:
//!
//! - It holds every entry that is new or differs in anything, whole, and all
//!   directories that lead there. What is not in it stays as it was.
//! - A file with several names of which one is in the layer has all of them there.
//! - An entry that is no directory replaces all that was below its name. A
//!   directory replaces what is no directory, and is otherwise merged with it.
//! - A directory newly opaque has its mark and all that is in it; in one that
//!   was opaque already the mark is not said again.
//! - A name that the world deletes is a whiteout, as in `rootfs.tar`. A name
//!   that the layers before hold and the world's `rootfs.tar` neither holds nor
//!   deletes is a whiteout with the PAX record `WORLDSHIM.whiteout=delta`.
//!
//! # Invariants
//!
//! The layers of a world, applied by any OCI runtime on the base image, give
//! the container's files; merged by [`merge`], they give `rootfs.tar` byte for
//! byte. The first holds if the parent is a former state of the same writable
//! layer, the second always: [`write_delta`] merges what it wrote, and falls
//! back to a full layer where a delta would not do.
//!
//! All layers of a world together are at most twice as long as its
//! `rootfs.tar` and 1 MiB, uncompressed, and at most [`MOST_LAYERS`]. So a
//! reader knows beforehand what it will have to do, and a decompression bomb
//! ends there. Memory grows with the number of names, never with file sizes.

mod archive;
mod changes;
mod compress;
mod content;
mod delta;
mod full;
mod merge;
mod merged;
mod node;
mod plan;
#[cfg(test)]
mod tests;

pub use changes::{Aspects, Change, Inode, Layers, Seen, changes};
pub use delta::{Outcome, WhyFull, write_delta};
pub use full::write_full;
pub use merge::merge;

use crate::digest::Digest;

/// Of how many layers a world's rootfs consists at most.
pub const MOST_LAYERS: usize = 8;

/// What the layers have to give: size and digest of `rootfs.tar`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Size of `rootfs.tar`, in bytes.
    pub size: u64,
    /// Digest of its bytes.
    pub sha256: Digest,
}

impl Expected {
    /// How many bytes may come out of its layers together.
    fn budget(&self) -> u64 {
        self.size.saturating_mul(2).saturating_add(1 << 20)
    }
}

/// What was written as a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Digest of the uncompressed tar, which OCI calls `diff_id`.
    pub diff_id: Digest,
    /// Size of the uncompressed tar, in bytes.
    pub size: u64,
    /// Size of the layer, in bytes.
    pub stored: u64,
}
