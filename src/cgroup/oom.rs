//! Waking up when the kernel kills for memory.
//!
//! v1 signals an eventfd registered at `memory.oom_control`, once per
//! out-of-memory and once when the cgroup goes. v2 changes `memory.events`,
//! whose `oom_kill` counts; its end is seen as a removal in the directory above.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;
use rustix::io::Errno;

use super::file;
use super::layout::Mode;
use super::paths::Cgroup;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::sys;

/// What an [`OomWatch`] saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OomEvent {
    /// The cgroup ran out of memory and the kernel killed (or, on v1 with its
    /// killer disabled, halted) in it. Several at once are told once.
    Killed,
    /// The cgroup was removed: nothing follows.
    Gone,
}

/// A watch over one cgroup's memory. Its descriptor is readable when there is
/// something to [`read`](OomWatch::read).
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
    dir: PathBuf,
    source: Source,
    gone: bool,
}

#[derive(Debug)]
enum Source {
    V1,
    V2 { kills: u64 },
}

impl Cgroup {
    /// Starts watching; only what happens from now on is told.
    ///
    /// Fails with [`ErrorKind::HostUnfit`] where no memory controller counts for it.
    pub fn oom_watch(&self) -> Result<OomWatch> {
        let watched = match self.mode {
            Mode::V1 => "memory.oom_control",
            Mode::V2 => "memory.events",
        };
        let dir = self
            .dir("memory")
            .filter(|dir| dir.join(watched).exists())
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::HostUnfit,
                    format!(
                        "no memory controller counts for cgroup {}: it has no {watched}",
                        self.name()
                    ),
                )
            })?;
        match self.mode {
            Mode::V1 => OomWatch::v1(dir),
            Mode::V2 => OomWatch::v2(dir),
        }
    }
}

impl OomWatch {
    fn v1(dir: &Path) -> Result<OomWatch> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .context(|| "make an eventfd")?;
        let control = dir.join("memory.oom_control");
        let control = File::open(&control).context(|| format!("open {}", control.display()))?;
        file::write(
            &dir.join("cgroup.event_control"),
            &format!("{} {}", fd.as_raw_fd(), control.as_raw_fd()),
        )?;
        Ok(OomWatch {
            fd,
            dir: dir.to_owned(),
            source: Source::V1,
            gone: false,
        })
    }

    fn v2(dir: &Path) -> Result<OomWatch> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .context(|| "make an inotify descriptor")?;
        let events = dir.join("memory.events");
        inotify::add_watch(&fd, &events, inotify::WatchFlags::MODIFY)
            .context(|| format!("watch {}", events.display()))?;
        // The kernel tells of a cgroup's removal only in the directory above it.
        let above = dir.parent().unwrap_or(dir);
        inotify::add_watch(
            &fd,
            above,
            inotify::WatchFlags::DELETE | inotify::WatchFlags::ONLYDIR,
        )
        .context(|| format!("watch {}", above.display()))?;
        Ok(OomWatch {
            fd,
            dir: dir.to_owned(),
            source: Source::V2 {
                kills: kills(dir).unwrap_or(0),
            },
            gone: false,
        })
    }

    /// What happened since the last call, without waiting; `None` when nothing did.
    pub fn read(&mut self) -> Result<Option<OomEvent>> {
        if self.gone {
            return Ok(Some(OomEvent::Gone));
        }
        let signals = self.drain()?;
        let exists = self.dir.is_dir();
        self.gone = !exists;
        let killed = match &mut self.source {
            // The removal is a signal too; any other one was an out-of-memory.
            Source::V1 => signals > u64::from(!exists),
            Source::V2 { kills: seen } => {
                let now = kills(&self.dir).unwrap_or(*seen);
                let more = now > *seen;
                *seen = now;
                more
            }
        };
        Ok(match (killed, exists) {
            (true, _) => Some(OomEvent::Killed),
            (false, false) => Some(OomEvent::Gone),
            (false, true) => None,
        })
    }

    /// Waits for the next event. Needs a tokio runtime with I/O; dropping the
    /// future loses nothing. After [`OomEvent::Gone`] it returns that again.
    pub async fn next(&mut self) -> Result<OomEvent> {
        loop {
            if let Some(event) = self.read()? {
                return Ok(event);
            }
            let readable = sys::async_readable(self.fd.as_fd())
                .context(|| "watch the out-of-memory descriptor")?;
            let _guard = readable
                .readable()
                .await
                .context(|| "wait for an out-of-memory event")?;
        }
    }

    /// Empties the descriptor: on v1 the number of signals, on v2 nothing to count.
    fn drain(&self) -> Result<u64> {
        let mut signals = 0;
        let mut buffer = [0_u8; 4096];
        loop {
            match rustix::io::read(&self.fd, &mut buffer) {
                Ok(8) if matches!(self.source, Source::V1) => {
                    let mut count = [0_u8; 8];
                    count.copy_from_slice(&buffer[..8]);
                    signals += u64::from_ne_bytes(count);
                }
                Ok(0) | Err(Errno::AGAIN) => return Ok(signals),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).context(|| "read the out-of-memory descriptor"),
            }
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn kills(dir: &Path) -> Option<u64> {
    file::flat_keyed(&dir.join("memory.events"))?
        .get("oom_kill")
        .copied()
}
