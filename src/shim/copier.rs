//! containerd, as long as it copies a world out of its temporary folder.
//!
//! It removes the folder afterwards, and is the only one who does: when it is
//! killed meanwhile, nobody will, and nobody knows that the copying is over.
//! The folder was made for our task, so we see to both.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use rustix::process::{PidfdFlags, pidfd_open};
use rustix::time::Timespec;

use super::temporary;
use crate::error::{IoContext, Result};

/// Copying takes no longer than this.
pub const COPYING: Duration = Duration::from_secs(600);
/// How often the folder is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// The containerd process that asked for a checkpoint.
pub struct Copier(OwnedFd);

impl Copier {
    /// Whoever listens on containerd's socket.
    pub fn find(socket: &Path) -> Result<Copier> {
        let find = || -> rustix::io::Result<OwnedFd> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let ours =
                rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            rustix::net::connect(&ours, &SocketAddrUnix::new(socket)?)?;
            let listener = sockopt::socket_peercred(&ours)?;
            pidfd_open(listener.pid, PidfdFlags::empty())
        };
        let process = find().context(|| format!("find who listens on {}", socket.display()))?;
        Ok(Copier(process))
    }

    fn has_ended(&self) -> bool {
        let mut process = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut process, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Removes the folder, should containerd end before it has done so.
    pub fn look_after(self, folder: PathBuf) {
        tokio::spawn(async move {
            let begun = Instant::now();
            while folder.exists() && begun.elapsed() < COPYING {
                if self.has_ended() {
                    log::warn!("containerd ended and left {}", folder.display());
                    temporary::remove(&folder);
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        });
    }
}
