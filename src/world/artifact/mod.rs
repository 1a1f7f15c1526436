//! A world as an OCI artifact: a manifest over blobs of a [store](crate::store).
//!
//! ```text
//! config   world.json, byte for byte
//! layers   1-8  rootfs       rootfs.tar as a full layer and deltas on it
//!          1    spec         spec.json
//!          1    env          env.json
//!          1    images       a tar of CRIU's images, without those of memory
//!          1    pages        which page of memory is where in the packs
//!          0-n  packs        pages of memory
//!          0-n  base         the base image, where it is carried along
//! ```
//!
//! [`pack`] makes it of a world directory, and [`unpack`] the directory of it,
//! byte for byte: the digests in `world.json` say so of every file. A world
//! without an overlay has no rootfs layers. The order is as above; packs are in
//! the order in which the pages' index refers to them. The same directory packed
//! again, or with the same parent into another store, gives the same digests.

mod annotations;
mod base;
mod images;
mod layout;
mod lazy;
mod look;
mod pack;
mod rootfs;
mod unpack;
mod verify;

pub use annotations::{LINEAGE, ORIGIN, origin_of, parent_of};
pub use base::{BaseImage, chain_id, parts_of};
pub use layout::{Artifact, Content};
pub use lazy::{LazyMemory, lazy_memory};
pub use look::{OpenedWorld, RootfsLayers};
pub use pack::{PackRequest, PackedWorld, Parent, last_world_of, pack};
pub use unpack::{load, unpack, unpack_for_fork};
pub use verify::{VerifyReport, verify};

/// What a world's manifest says it is.
pub const ARTIFACT_TYPE: &str = "application/vnd.worldshim.world.v1";
/// `world.json`.
pub const CONFIG: &str = "application/vnd.worldshim.world.config.v1+json";
/// A layer of the rootfs.
pub const ROOTFS: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// `spec.json`.
pub const SPEC: &str = "application/vnd.worldshim.world.spec.v1+json";
/// `env.json`.
pub const ENV: &str = "application/vnd.worldshim.world.env.v1+json";
/// CRIU's images without those of memory.
pub const IMAGES: &str = "application/vnd.worldshim.world.criu.v1.tar+zstd";
/// The index of the pages of memory.
pub const PAGES: &str = "application/vnd.worldshim.world.pages.v1";
/// Pages of memory.
pub const PACK: &str = "application/vnd.worldshim.world.pack.v1";
/// A blob of the base image: its manifest, its config, a layer.
pub const BASE: &str = "application/vnd.worldshim.world.base.v1";

/// What a thread gave; its panic goes on here.
fn joined<T>(result: std::thread::Result<T>) -> T {
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
