//! A restore whose memory comes later, from the world's page server.

use std::path::{Path, PathBuf};

use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::lazy::{Line, handover};

/// Who has a container's memory, and the container's name there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LazyMemory {
    /// The page server's socket.
    pub server: PathBuf,
    /// The container's name there, and in its other lines.
    pub sibling: String,
}

impl LazyMemory {
    /// Runs `restore`, which has CRIU restore lazily with this work directory, and hands CRIU's
    /// userfaultfds to the server. Returns the line, which must be kept as long as the
    /// processes live: see [`Line`].
    pub fn during<T>(
        &self,
        work_dir: &Path,
        restore: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Line)> {
        let mut line = Line::connect(&self.server, &self.sibling)?;
        let listener = handover::listen(work_dir)?;
        let (over, stop) = pipe_with(PipeFlags::CLOEXEC).context(|| "make a pipe")?;
        let (restored, forwarded) = std::thread::scope(|scope| {
            use std::os::fd::AsFd;
            let forward = || handover::forward(&listener, &mut line, over.as_fd());
            let forwarding = scope.spawn(forward);
            let restored = restore();
            drop(stop);
            (restored, forwarding.join())
        });
        let restored = restored?;
        match forwarded {
            Ok(Ok(())) => Ok((restored, line)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::new(
                ErrorKind::Internal,
                "the thread that hands memory over panicked",
            )),
        }
    }
}
