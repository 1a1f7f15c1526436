//! Who lives in a cgroup: list, signal, kill, and remove when empty.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpid, kill_process};

use super::file;
use super::layout::Mode;
use super::paths::Cgroup;
use crate::error::{Error, ErrorKind, IoContext, Result};

/// How long killed processes may take to vanish.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an empty cgroup may stay busy: dying processes leave it a little late.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Freezing is tried from this round of killing on: something forks faster than we kill.
const FREEZE_FROM_ROUND: u32 = 5;

impl Cgroup {
    /// All processes in it and in the cgroups below it, in any of the hierarchies,
    /// sorted. Empty when it does not exist.
    pub fn pids(&self) -> Result<Vec<Pid>> {
        let mut pids = BTreeSet::new();
        for dir in &self.dirs {
            for path in tree(&dir.path)? {
                pids.extend(procs(&path)?);
            }
        }
        Ok(pids.into_iter().filter_map(Pid::from_raw).collect())
    }

    /// Sends a signal once to every process in it; how many were reached.
    pub fn signal_all(&self, signal: Signal) -> Result<usize> {
        let mut reached = 0;
        for pid in self.pids_but_never_ours()? {
            match kill_process(pid, signal) {
                Ok(()) => reached += 1,
                Err(Errno::SRCH) => {}
                Err(error) => {
                    return Err(error)
                        .context(|| format!("send {signal:?} to pid {}", pid.as_raw_nonzero()));
                }
            }
        }
        Ok(reached)
    }

    /// Kills every process in it, frozen ones too, and returns when none is left.
    ///
    /// Fails with [`ErrorKind::Timeout`] after 10 s, naming a process that stayed.
    pub fn kill_all(&self) -> Result<()> {
        let deadline = Instant::now() + KILL_TIMEOUT;
        let mut pause = Duration::from_micros(100);
        for round in 0.. {
            let left = self.pids_but_never_ours()?;
            let Some(first) = left.first() else {
                return Ok(());
            };
            if Instant::now() > deadline {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!(
                        "{} process(es) in cgroup {} outlive SIGKILL; the first: {}",
                        left.len(),
                        self.name(),
                        super::freezer::describe(*first),
                    ),
                ));
            }
            self.kill_round(round)?;
            sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        unreachable!("the loop ends by its deadline");
    }

    fn kill_round(&self, round: u32) -> Result<()> {
        if self.mode == Mode::V2
            && let Some(dir) = self.dirs.first()
            && file::write(&dir.path.join("cgroup.kill"), "1").is_ok()
        {
            return Ok(());
        }
        // On v1 a frozen process dies only once thawed: the guard's drop does it.
        let _still = (round >= FREEZE_FROM_ROUND)
            .then(|| self.freezer()?.freeze(Duration::from_millis(100)))
            .and_then(Result::ok);
        self.signal_all(Signal::KILL)?;
        match self.freezer().and_then(|freezer| freezer.thaw()) {
            Err(error) if error.kind() == ErrorKind::WrongState => Err(error),
            // Without a freezer, or with the cgroup gone, nothing was frozen.
            _ => Ok(()),
        }
    }

    /// Removes it and all cgroups below it. No error when it is gone already.
    ///
    /// Kills nothing: fails with [`ErrorKind::WrongState`] when processes stay in it.
    pub fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + REMOVE_TIMEOUT;
        for dir in &self.dirs {
            let mut pause = Duration::from_millis(1);
            while let Err(error) = remove_tree(&dir.path) {
                let busy = error.kind() == io::ErrorKind::ResourceBusy;
                if !busy || Instant::now() > deadline {
                    return Err(self.why_not_removed(&dir.path, error));
                }
                sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    fn why_not_removed(&self, path: &Path, error: io::Error) -> Error {
        let members = self.pids().unwrap_or_default();
        match members.first() {
            None => Error::caused_by(
                ErrorKind::Io,
                format!("remove cgroup {}", path.display()),
                error,
            ),
            Some(first) => Error::new(
                ErrorKind::WrongState,
                format!(
                    "cgroup {} cannot be removed: {} process(es) live in it; the first: {}",
                    path.display(),
                    members.len(),
                    super::freezer::describe(*first)
                ),
            ),
        }
    }

    /// The members; refused when this very process is one of them.
    pub(super) fn pids_but_never_ours(&self) -> Result<Vec<Pid>> {
        let pids = self.pids()?;
        if pids.contains(&getpid()) {
            return Err(Error::new(
                ErrorKind::WrongState,
                format!(
                    "cgroup {} holds this process itself: it is not a container's own",
                    self.name()
                ),
            ));
        }
        Ok(pids)
    }
}

/// The directory and all below it, parents first. Empty when it does not exist.
fn tree(top: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut todo = vec![top.to_owned()];
    while let Some(dir) = todo.pop() {
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error).context(|| format!("list cgroup {}", dir.display())),
        };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                todo.push(entry.path());
            }
        }
        found.push(dir);
    }
    Ok(found)
}

fn remove_tree(top: &Path) -> io::Result<()> {
    let dirs = tree(top).map_err(io::Error::other)?;
    for dir in dirs.iter().rev() {
        match std::fs::remove_dir(dir) {
            Err(error) if !is_gone(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The pids in one directory. A v2 threaded cgroup lists none: its domain does.
/// 0 stands for a process outside our pid namespace, which nobody here can name.
fn procs(dir: &Path) -> Result<Vec<i32>> {
    let path = dir.join("cgroup.procs");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text
            .lines()
            .filter_map(|line| line.parse().ok())
            .filter(|pid| *pid != 0)
            .collect()),
        Err(error)
            if is_gone(&error) || error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error).context(|| format!("read {}", path.display())),
    }
}

/// A cgroup that vanishes while it is read says ENOENT or ENODEV.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(Errno::NODEV.raw_os_error())
}
