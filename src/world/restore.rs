//! Verify, then bring back.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{RootfsMountRequest, Target};

/// What a restore needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// The container to become.
    pub target: Target,
    /// Folder of the world.
    pub world: PathBuf,
    /// The rootfs as containerd gave it.
    pub rootfs: Vec<RootfsMountRequest>,
    /// Where the terminal's master is to go.
    pub console_socket: Option<PathBuf>,
    /// The new container has a terminal.
    pub terminal: bool,
    /// containerd's namespace.
    pub namespace: String,
    /// containerd's gRPC socket.
    pub containerd: String,
}

/// Checks everything that can be checked before anything changes.
pub fn verify(_request: &Request) -> Result<()> {
    Err(Error::new(ErrorKind::Internal, "not yet"))
}

/// Brings the container back; returns its init's process id.
pub fn restore(_request: &Request) -> Result<i32> {
    Err(Error::new(ErrorKind::Internal, "not yet"))
}
