//! The rootfs part of a world: a container's writable layer as `rootfs.tar`.
//!
//! # Format
//!
//! `rootfs.tar` is a POSIX PAX archive in OCI layer form, always the same
//! bytes for the same directory:
//!
//! - The first entry is the layer's root, `./`. Every directory comes before
//!   what is in it, and what is in one directory is sorted by the bytes of its
//!   names. No path occurs twice; every parent has an entry of its own.
//! - A deleted name is an empty file `.wh.NAME`; a directory that hides the
//!   one below is followed at once by an empty file `.wh..wh..opq` in it.
//! - Owners are numbers, as on disk. Times are `mtime` with nanoseconds.
//!   Extended attributes are `SCHILY.xattr.NAME` (`=` and `%` in a name are
//!   written `%3D` and `%25`, as GNU tar does), POSIX ACLs and file
//!   capabilities among them.
//! - A file with holes is GNU's sparse format 1.0, which GNU tar, Go's
//!   `archive/tar` (so containerd) and Python read.
//! - A further name of an inode is a hardlink to its first name.
//! - A unix socket, which a tar cannot hold, is an empty file with the record
//!   `WORLDSHIM.type=socket`. Other tools make an empty file of it; to connect
//!   to that or to a socket nobody listens on fails alike.
//!
//! # Invariants
//!
//! [`verify`] accepts nothing else, so that a hostile archive has no room: an
//! entry below a link or a file cannot be expressed. Whoever writes to a host
//! opens one name at a time from a directory's descriptor and follows no link.
//! Memory grows with the number of names in a layer, never with file sizes.

mod apply;
mod attributes;
mod capture;
mod compare;
mod decode;
mod deleted;
mod empty;
mod encode;
mod entry;
mod held;
mod holes;
pub mod layers;
mod limits;
mod mounts;
mod overlay;
mod pax;
mod policy;
mod reader;
mod remove;
mod source;
mod upper;
mod walk;
mod xattrs;

pub use apply::bring_back;
pub use capture::{capture, capture_layers};
pub use compare::same_as;
pub use deleted::deleted;
pub use empty::begin_empty;
pub use held::bring_up;
pub use mounts::RootfsMount;
pub use overlay::Layering;
pub use policy::{DevicePolicy, DeviceRule, Policy, Privileged};
pub use reader::{Totals, verify};
pub use upper::Upper;
