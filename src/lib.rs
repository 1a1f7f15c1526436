//! Worldshim freezes a running container into one world and brings it back.
//!
//! Dependencies between the modules point down only:
//!
//! ```text
//! cli, shim            what people and containerd talk to
//!   ├─ archive         worlds as files: export and import (uses containerd and world)
//!   ├─ registry        worlds in registries: push and pull (uses store and world)
//!   └─ world           what a world is: capture, verify, bring back
//!        ├─ lazy       pages served to restored processes when they touch them
//!        ├─ memory     the pages of processes in packs (uses criu and store)
//!        ├─ criu       CRIU's RPC, options, logs
//!        ├─ runtime    libcontainer in a short-lived process of its own
//!        ├─ cgroup     freezer, statistics, limits, OOM, on cgroup v1 and v2
//!        ├─ hooks      what runs around freeze and restore
//!        └─ store      the OCI image layout that worlds lie in
//!             └─ digest, json, sys, error
//! ```
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod archive;
pub mod cgroup;
pub mod cli;
pub mod containerd;
pub mod criu;
pub mod digest;
pub mod error;
pub mod hooks;
pub mod json;
pub mod lazy;
pub mod memory;
pub mod registry;
pub mod runtime;
pub mod shim;
pub mod store;
pub mod sys;
pub mod world;

pub use error::{Error, ErrorKind, Result};
