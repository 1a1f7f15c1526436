//! Freeze, capture all parts side by side, commit, thaw.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{RootfsMountRequest, Target};

/// What a client wishes of a checkpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Wishes {
    /// End the container once its world is safe.
    pub exit: bool,
    /// Keep established connections.
    pub open_tcp: bool,
    /// Allow connections to unix sockets outside of the container.
    pub external_unix_sockets: bool,
    /// Allow file locks.
    pub file_locks: bool,
    /// Where CRIU's logs go.
    pub work_path: Option<PathBuf>,
    /// The world's folder is the caller's own, not containerd's temporary one.
    pub image_path_is_ours: bool,
}

/// What [`checkpoint`] needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// The container.
    pub target: Target,
    /// Its init's process id.
    pub pid: i32,
    /// Folder for the world.
    pub world: PathBuf,
    /// The rootfs as containerd gave it.
    pub rootfs: Vec<RootfsMountRequest>,
    /// It has a terminal.
    pub terminal: bool,
    /// containerd's namespace.
    pub namespace: String,
    /// containerd's gRPC socket.
    pub containerd: String,
    /// What the client wishes.
    pub options: Wishes,
    /// Process ids of exec'd processes.
    pub execs: Vec<i32>,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// Nanoseconds during which the container stood still because of us.
    pub frozen_ns: u64,
    /// Nanoseconds in all.
    pub total_ns: u64,
}

/// Writes the container as a world.
pub fn checkpoint(_request: &Request) -> Result<Outcome> {
    Err(Error::new(ErrorKind::Internal, "not yet"))
}
