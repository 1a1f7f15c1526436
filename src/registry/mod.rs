//! Worlds in registries, by the OCI distribution protocol.
//!
//! A world goes as it lies in the store: its blobs first, then its manifest,
//! byte for byte, so that its digest is the same everywhere. Only what the other
//! side lacks is carried, several blobs at a time; what was cut short is gone on
//! with. What comes is not believed: a manifest is bounded and must be a world's
//! before any blob is fetched, a blob has its size and digest before it gets its
//! name, and a world becomes part of the store when all of it is there.
//!
//! `oci-client` gets us in (challenges, tokens) and sets the tag. Blobs go by
//! requests of our own: that crate has no upload that can be gone on with, and
//! reads a manifest whatever its size.
//!
//! This is the only part that waits for a network, so async ends here: [`Remote`]
//! owns the I/O loop and blocks at its edge.

mod credentials;
mod download;
mod failure;
mod pull;
mod push;
mod reference;
mod remote;
mod session;
mod upload;

use std::sync::Arc;

use serde::Serialize;

use crate::digest::Digest;
pub use pull::Found;
pub use reference::RemoteReference;
pub use remote::{Access, Remote};

/// What happened to bytes of a world that is being carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// So many were carried.
    Carried(u64),
    /// So many need not be.
    Skipped(u64),
}

/// Is told what happens, by several threads.
pub type Watch = Arc<dyn Fn(Moved) + Send + Sync>;

/// What a push or a pull did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Transfer {
    /// The world: of its manifest.
    pub digest: Digest,
    /// Of all that it consists of, the manifest included.
    pub bytes: u64,
    /// How many of them were carried.
    pub transferred_bytes: u64,
    /// How many blobs it has, the manifest not counted.
    pub blobs: u64,
    /// How many of them were on the other side already.
    pub skipped_blobs: u64,
}

/// What became of one blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carried {
    /// So many bytes of it went over the network.
    Bytes(u64),
    /// It was there.
    Skipped,
}
