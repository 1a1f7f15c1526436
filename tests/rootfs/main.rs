//! The rootfs part of a world, against real filesystems and real tools.
//! These tests need root (devices, owners, trusted attributes, mounts).

mod edges;
mod hostile;
mod interop;
mod layers;
mod overlay;
mod roundtrip;
mod scratch;
mod snapshot;
mod tree;
