//! Containers made by libcontainer.
//!
//! Everything here runs in a short-lived process of its own (the shim's binary
//! re-executed, see `shim::helper`): libcontainer forks, changes directory,
//! makes its process non-dumpable and closes file descriptors, none of which a
//! long-lived, multi-container process may suffer. When that process ends, the
//! container's init becomes a child of the shim, which is a subreaper.
//!
//! libcontainer keeps its state in `<bundle>/world/<id>/`, so that removing the
//! bundle removes all of it.

mod cgroup_path;
mod container;
mod exec;
mod idmap;
mod last_words;
mod mounts;
mod netlink;
pub mod network;
mod program;
mod streams;
mod working_dir;

pub use cgroup_path::{cgroup_path, disown_cgroup, own_cgroup};
pub use container::{Adopt, Create, Target, adopt, create, delete, start};
pub use exec::{Exec, exec};
pub use idmap::{HOLDER_ARGUMENT, View, hold_namespace};
pub use last_words::listen as listen_to_libcontainer;
pub use mounts::{RootfsMountRequest, mount_rootfs, unmount_rootfs};

/// Folder of ours inside a bundle: libcontainer's state, logs, console sockets.
pub const STATE_DIR: &str = "world";
