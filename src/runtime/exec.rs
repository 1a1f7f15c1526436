//! A further process in a running container.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::container::{Target, builder, runtime_error};
use crate::error::Result;

/// What [`exec`] needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exec {
    /// Which container.
    pub target: Target,
    /// File with the OCI `process` object.
    pub process: PathBuf,
    /// Where the terminal's master is to be sent, for a process with a terminal.
    pub console_socket: Option<PathBuf>,
}

/// Runs a process in the container's namespaces and cgroups, with the calling
/// process's stdin, stdout and stderr. Returns its process id; it is started
/// when this returns.
pub fn exec(request: &Exec) -> Result<i32> {
    builder(&request.target.id, &request.target.state_root())?
        .with_console_socket(request.console_socket.clone())
        .as_tenant()
        .with_process(Some(&request.process))
        .with_detach(true)
        .build()
        .map(|pid| pid.as_raw())
        .map_err(|error| runtime_error("run a process in the container", error))
}
