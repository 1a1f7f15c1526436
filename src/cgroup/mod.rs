//! Where a container's processes live: its control groups, on cgroup v1,
//! hybrid and v2 hosts.
//!
//! A [`Cgroup`] is a set of directories, one per hierarchy (one in all on v2).
//! Three rules keep the host safe from us:
//! - a directory that is the top of its hierarchy never belongs to a [`Cgroup`];
//! - nothing freezes or kills a cgroup that this process itself lives in;
//! - creating never joins a cgroup in which somebody else's processes live.
//!
//! ```text
//! layout   which hierarchies this host has, and where they are mounted
//! paths    from a pid, or from a spec's cgroupsPath, to directories
//! limits   create, apply and update limits (through libcgroups)
//! devices  device rules on v2, by a BPF program
//! members  who is in it; signal, kill, remove
//! freezer  stand still, go on
//! stats    what `ctr task metrics` and the kubelet read
//! oom      wake when the kernel kills for memory
//! file     the small text formats of cgroup files
//! ```
//!
//! The kernel's descriptions: `Documentation/admin-guide/cgroup-v1/`, `cgroup-v2.rst`.

mod devices;
mod file;
mod freezer;
mod layout;
mod limits;
mod members;
mod oom;
mod paths;
mod stats;
#[cfg(test)]
mod unified_tests;

pub use freezer::{Freezer, FreezerState, Frozen};
pub use layout::{Layout, Mode};
pub use oom::{OomEvent, OomWatch};
pub use paths::Cgroup;
