//! A CRIU that outlives the process that started it.
//!
//! When the process that dumps is killed, its CRIU goes on to the next stage,
//! finds nobody there to answer, puts the container's tasks right and gives up.
//! Until then the container must not be touched: whoever cleans up waits here.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::time::Timespec;

use crate::error::{IoContext, Result};

/// Says in a work directory which CRIU works there; gone when this is.
pub(super) struct Mark(PathBuf);

impl Mark {
    pub(super) fn set(work_dir: &Path, pid: Pid) -> Result<Mark> {
        let path = file(work_dir);
        fs::write(&path, pid.as_raw_pid().to_string())
            .context(|| format!("write {}", path.display()))?;
        Ok(Mark(path))
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn file(work_dir: &Path) -> PathBuf {
    work_dir.join("criu.pid")
}

/// Waits until a dump's CRIU in this work directory, if there is one left, has
/// ended; kills it after `patience`. The container's cgroup may be frozen or
/// thawed then.
pub fn await_orphan(work_dir: &Path, patience: Duration) -> Result<()> {
    let text = fs::read_to_string(file(work_dir)).unwrap_or_default();
    let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
        return Ok(()); // It has ended.
    };
    // Asked after the descriptor was had: a number that was given away again is told.
    if works_in(pid, work_dir) {
        let mut gone = [PollFd::new(&pidfd, PollFlags::IN)];
        let limit = Timespec::try_from(patience).ok();
        if poll(&mut gone, limit.as_ref()).context(|| "wait for CRIU")? == 0 {
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            poll(&mut gone, None).context(|| "wait for CRIU")?;
        }
    }
    let _ = fs::remove_file(file(work_dir));
    Ok(())
}

/// Whether the process is a `criu`, here or before it has gone to its directory.
fn works_in(pid: Pid, work_dir: &Path) -> bool {
    let proc = PathBuf::from(format!("/proc/{}", pid.as_raw_pid()));
    let comm = fs::read_to_string(proc.join("comm")).unwrap_or_default();
    let here = fs::read_link(proc.join("cwd"))
        .is_ok_and(|cwd| fs::canonicalize(work_dir).is_ok_and(|work_dir| work_dir == cwd));
    here || comm.trim() == "criu"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_waited_for_where_nothing_is() {
        let directory = tempfile::tempdir().unwrap();
        await_orphan(directory.path(), Duration::ZERO).unwrap();
        // A number that is another process's by now is left alone.
        fs::write(file(directory.path()), std::process::id().to_string()).unwrap();
        await_orphan(directory.path(), Duration::ZERO).unwrap();
        assert!(!file(directory.path()).exists());
    }
}
