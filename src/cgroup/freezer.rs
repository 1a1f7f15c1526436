//! Standing still: the v1 freezer controller and v2's `cgroup.freeze`.
//!
//! Asking is one write; being frozen is a state of every task, reached a
//! little later. [`Freezer::freeze`] returns only once the kernel says that
//! all are. v1 has nothing to wait on, so its state is polled in steps of
//! microseconds (about 1 ms in all); v2 wakes a poller of `cgroup.events`.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::Pid;

use super::file;
use super::layout::Mode;
use super::paths::Cgroup;
use crate::error::{Error, ErrorKind, IoContext, Result};

/// How long a thawed cgroup may take to say so; longer means that one above it is frozen.
const THAW_TIMEOUT: Duration = Duration::from_secs(1);

/// What the kernel says of a cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezerState {
    /// Its tasks run.
    Thawed,
    /// Some of its tasks stand still, not yet all.
    Freezing,
    /// All its tasks stand still.
    Frozen,
}

/// The switch of one cgroup and of those below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freezer {
    cgroup: Cgroup,
    dir: PathBuf,
}

impl Cgroup {
    /// Its freezer. Fails with [`ErrorKind::HostUnfit`] when the v1 freezer
    /// hierarchy is not mounted, or the process it was found from is at its top.
    pub fn freezer(&self) -> Result<Freezer> {
        let dir = self.dir("freezer").ok_or_else(|| {
            Error::new(
                ErrorKind::HostUnfit,
                "the container has no cgroup of its own in the freezer hierarchy",
            )
        })?;
        Ok(Freezer {
            cgroup: self.clone(),
            dir: dir.to_owned(),
        })
    }

    /// Freezes it: see [`Freezer::freeze`].
    pub fn freeze(&self, timeout: Duration) -> Result<Frozen> {
        self.freezer()?.freeze(timeout)
    }
}

impl Freezer {
    /// Its directory: what CRIU's `freeze_cgroup` wants.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the kernel says now.
    pub fn state(&self) -> Result<FreezerState> {
        match self.cgroup.mode() {
            Mode::V1 => self.state_v1(),
            Mode::V2 => self.state_v2(),
        }
    }

    /// Freezes every task in the cgroup and below, and returns when all stand still.
    ///
    /// On failure the cgroup is thawed again, unless it was frozen before. After
    /// `timeout` the failure is [`ErrorKind::Timeout`] and names the tasks that
    /// would not stand still.
    pub fn freeze(&self, timeout: Duration) -> Result<Frozen> {
        self.cgroup.pids_but_never_ours()?;
        let before = self.state()?;
        let asked = Instant::now();
        if before == FreezerState::Frozen {
            return Ok(Frozen::new(self.clone(), asked, asked, true));
        }
        let reached = self
            .ask(true)
            .and_then(|()| self.wait_for(FreezerState::Frozen, timeout));
        match reached {
            Ok(Some(at)) => Ok(Frozen::new(self.clone(), asked, at, false)),
            Ok(None) => {
                let restless = self.restless();
                self.thaw()?;
                Err(Error::new(
                    ErrorKind::Timeout,
                    format!(
                        "freezing cgroup {} took longer than {timeout:?}; still going: {restless}",
                        self.dir.display()
                    ),
                ))
            }
            Err(error) => {
                // The first failure is the one to tell.
                let _ = self.thaw();
                Err(error)
            }
        }
    }

    /// Asks for it and does not wait: for tasks that somebody else holds still, and that must
    /// not run when they are let go. That one, `holder`, leaves the cgroup first: it is to
    /// work on.
    pub fn begin_without(&self, holder: i32) -> Result<()> {
        self.cgroup.pids_but_never_ours()?;
        // On v2, not every cgroup above takes processes; the topmost one does.
        let outside = self.dir.ancestors().skip(1);
        let mut outside = outside.map(|dir| dir.join("cgroup.procs"));
        let moved = outside
            .any(|procs| procs.exists() && std::fs::write(&procs, holder.to_string()).is_ok());
        match moved {
            true => self.ask(true),
            false => Err(Error::new(
                ErrorKind::HostUnfit,
                format!(
                    "process {holder} cannot leave the cgroup {}",
                    self.dir.display()
                ),
            )),
        }
    }

    /// Lets the tasks run and returns the instant at which they do.
    ///
    /// Fails with [`ErrorKind::WrongState`] when a cgroup above this one is frozen.
    pub fn thaw(&self) -> Result<Instant> {
        self.ask(false)?;
        self.wait_for(FreezerState::Thawed, THAW_TIMEOUT)?
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::WrongState,
                    format!(
                        "cgroup {} stays frozen: a cgroup above it is frozen",
                        self.dir.display()
                    ),
                )
            })
    }

    fn ask(&self, frozen: bool) -> Result<()> {
        match self.cgroup.mode() {
            Mode::V1 => {
                let word = if frozen { "FROZEN" } else { "THAWED" };
                file::write(&self.dir.join("freezer.state"), word)
            }
            Mode::V2 => {
                let digit = if frozen { "1" } else { "0" };
                file::write(&self.dir.join("cgroup.freeze"), digit)
            }
        }
    }

    /// The instant the state was seen, or `None` when the time is over.
    fn wait_for(&self, wanted: FreezerState, timeout: Duration) -> Result<Option<Instant>> {
        match self.cgroup.mode() {
            Mode::V1 => self.wait_v1(wanted, timeout),
            Mode::V2 => self.wait_v2(wanted, timeout),
        }
    }

    fn state_v1(&self) -> Result<FreezerState> {
        let path = self.dir.join("freezer.state");
        let text = std::fs::read_to_string(&path).context(|| format!("read {}", path.display()))?;
        match text.trim() {
            "THAWED" => Ok(FreezerState::Thawed),
            "FREEZING" => Ok(FreezerState::Freezing),
            "FROZEN" => Ok(FreezerState::Frozen),
            other => Err(Error::new(
                ErrorKind::Internal,
                format!("{} says {other:?}", path.display()),
            )),
        }
    }

    fn wait_v1(&self, wanted: FreezerState, timeout: Duration) -> Result<Option<Instant>> {
        let deadline = Instant::now() + timeout;
        let mut pause = Duration::from_micros(20);
        loop {
            if self.state_v1()? == wanted {
                return Ok(Some(Instant::now()));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(2));
        }
    }

    fn state_v2(&self) -> Result<FreezerState> {
        let path = self.dir.join("cgroup.freeze");
        let asked =
            std::fs::read_to_string(&path).context(|| format!("read {}", path.display()))?;
        let events = self.dir.join("cgroup.events");
        let events =
            std::fs::read_to_string(&events).context(|| format!("read {}", events.display()))?;
        Ok(match (says_frozen(&events), asked.trim()) {
            (true, _) => FreezerState::Frozen,
            (false, "1") => FreezerState::Freezing,
            (false, _) => FreezerState::Thawed,
        })
    }

    fn wait_v2(&self, wanted: FreezerState, timeout: Duration) -> Result<Option<Instant>> {
        let path = self.dir.join("cgroup.events");
        let mut events = File::open(&path).context(|| format!("open {}", path.display()))?;
        let deadline = Instant::now() + timeout;
        loop {
            let mut text = String::new();
            events
                .rewind()
                .and_then(|()| events.read_to_string(&mut text))
                .context(|| format!("read {}", path.display()))?;
            if says_frozen(&text) == (wanted == FreezerState::Frozen) {
                return Ok(Some(Instant::now()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let left = Timespec::try_from(left).unwrap_or(Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            });
            let mut fds = [PollFd::new(&events, PollFlags::PRI)];
            retry_on_intr(|| poll(&mut fds, Some(&left)))
                .context(|| format!("wait for {}", path.display()))?;
        }
    }

    /// A few of the tasks that do not stand still, for a person to read.
    fn restless(&self) -> String {
        let pids = self.cgroup.pids().unwrap_or_default();
        let mut found: Vec<_> = pids.into_iter().filter(|pid| !stands_still(*pid)).collect();
        let total = found.len();
        found.truncate(3);
        let mut words: Vec<_> = found.into_iter().map(describe).collect();
        if total > words.len() {
            words.push(format!("and {} more", total - words.len()));
        }
        if words.is_empty() {
            return "nothing by now".to_owned();
        }
        words.join(", ")
    }
}

fn says_frozen(events: &str) -> bool {
    file::parse_flat_keyed(events).get("frozen") == Some(&1)
}

/// True when the process is in one of the kernel's two freezers.
fn stands_still(pid: Pid) -> bool {
    let wchan = std::fs::read_to_string(format!("/proc/{}/wchan", pid.as_raw_nonzero()));
    wchan.is_ok_and(|place| {
        matches!(
            place.trim(),
            "__refrigerator" | "do_freezer_trap" | "get_signal" | "do_signal_stop" | "ptrace_stop"
        )
    })
}

/// A process in words: `pid 12 (cat), state D, in request_wait_answer`.
pub(super) fn describe(pid: Pid) -> String {
    let raw = pid.as_raw_nonzero().get();
    let stat = procfs::process::Process::new(raw).and_then(|process| process.stat());
    let Ok(stat) = stat else {
        return format!("pid {raw}");
    };
    let place = std::fs::read_to_string(format!("/proc/{raw}/wchan")).unwrap_or_default();
    let place = match place.trim() {
        "" | "0" => String::new(),
        name => format!(", in {name}"),
    };
    format!("pid {raw} ({}), state {}{place}", stat.comm, stat.state)
}

/// A frozen cgroup. Dropping it gives the cgroup the state it had before:
/// it thaws, unless it was frozen already when it was asked for.
#[derive(Debug)]
#[must_use = "dropping it thaws the cgroup"]
pub struct Frozen {
    freezer: Freezer,
    asked: Instant,
    since: Instant,
    was_frozen: bool,
    armed: bool,
}

impl Frozen {
    fn new(freezer: Freezer, asked: Instant, since: Instant, was_frozen: bool) -> Frozen {
        Frozen {
            freezer,
            asked,
            since,
            was_frozen,
            armed: !was_frozen,
        }
    }

    /// When freezing was asked for: from here on tasks may have stood still.
    pub fn asked(&self) -> Instant {
        self.asked
    }

    /// When all tasks were seen standing still.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// True when it was frozen before (a paused container).
    pub fn was_frozen(&self) -> bool {
        self.was_frozen
    }

    /// The cgroup's freezer.
    pub fn freezer(&self) -> &Freezer {
        &self.freezer
    }

    /// Thaws it, also if it was frozen before, and returns when it ran again.
    pub fn thaw(mut self) -> Result<Instant> {
        let thawed = self.freezer.thaw()?;
        self.armed = false;
        Ok(thawed)
    }

    /// Leaves it frozen.
    pub fn leave_frozen(mut self) {
        self.armed = false;
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        match self.freezer.thaw() {
            Ok(_) => {}
            // Its last process has died and it was removed: nothing stands still.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                tracing::error!(%error, cgroup = %self.freezer.dir.display(), "thaw failed");
            }
        }
    }
}
