//! A thread that traces `criu` and notices its death before the kernel does
//! anything about it.
//!
//! While CRIU dumps, it holds the container's tasks by ptrace and at times has
//! them run code that it put there. When it is killed at such a moment, the
//! kernel lets them go on from there, and they crash. A tracer of `criu` with
//! `PTRACE_O_TRACEEXIT` is told of the death *before* the tasks are let go, and
//! `criu` stays so until the tracer resumes it: time to freeze them.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::mpsc;
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal};

use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::sys::trace::{self, Change};

/// What befalls `criu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// A signal ends it; it stands still until the call returns, and still
    /// holds what it traces.
    Near,
    /// It is gone, and with it its hold.
    Done,
}

/// Called at an unnatural death of `criu`, on the guard's thread.
pub type OnDeath = Box<dyn FnMut(Death) + Send>;

/// The thread; it reaps `criu`.
#[derive(Debug)]
pub(super) struct Guard {
    thread: Option<JoinHandle<io::Result<i32>>>,
}

impl Guard {
    /// Traces the child `pid` from now on.
    pub fn start(pid: i32, on_death: OnDeath) -> Result<Guard> {
        let (ready, seized) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("criu-guard".into())
            .spawn(move || {
                let begun = trace::seize(pid, libc::PTRACE_O_TRACEEXIT);
                let _ = ready.send(begun);
                watch(pid, on_death)
            })
            .context(|| "start a thread")?;
        let guard = Guard {
            thread: Some(thread),
        };
        match seized.recv() {
            Ok(Ok(())) => Ok(guard),
            // It may be that CRIU has ended already: then its status tells why.
            Ok(Err(error)) if is_gone(&error) => Ok(guard),
            Ok(Err(error)) => Err(error).context(|| "trace CRIU"),
            Err(_) => Err(Error::new(ErrorKind::Internal, "a thread ended early")),
        }
    }

    /// Waits until `criu` has ended and all is done that its death asked for.
    pub fn reap(&mut self) -> io::Result<ExitStatus> {
        let thread = self.thread.take();
        let joined = thread.map_or(Ok(Ok(0)), JoinHandle::join);
        let status = joined.unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))?;
        Ok(ExitStatus::from_raw(status))
    }
}

fn watch(pid: i32, mut on_death: OnDeath) -> io::Result<i32> {
    let mut by_signal = false;
    loop {
        match trace::wait(pid, true)? {
            None => {}
            Some(Change::Ended(status)) => {
                if by_signal || libc::WIFSIGNALED(status) {
                    on_death(Death::Done);
                }
                return Ok(status);
            }
            Some(Change::Stopped { event, .. }) if event == libc::PTRACE_EVENT_EXIT => {
                if trace::exit_status(pid).is_ok_and(|status| libc::WIFSIGNALED(status)) {
                    by_signal = true;
                    end_children(pid);
                    on_death(Death::Near);
                }
                go_on(trace::resume(pid, 0))?;
            }
            Some(Change::Stopped { event, signal }) if event == libc::PTRACE_EVENT_STOP => {
                let stops = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
                go_on(match stops.contains(&signal) {
                    true => trace::listen(pid),
                    false => trace::resume(pid, 0),
                })?;
            }
            Some(Change::Stopped { signal, .. }) => go_on(trace::resume(pid, signal))?,
        }
    }
}

/// CRIU's own children (probes of the kernel, `tar`) would outlive it.
fn end_children(pid: i32) {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = std::fs::read_to_string(path).unwrap_or_default();
    for child in children.split_whitespace() {
        if let Some(child) = child.parse().ok().and_then(Pid::from_raw) {
            let _ = rustix::process::kill_process(child, Signal::KILL);
        }
    }
}

/// What is said of a process that has ended, and of one that waits to be reaped.
fn is_gone(error: &io::Error) -> bool {
    let gone = [libc::ESRCH, libc::EPERM];
    error
        .raw_os_error()
        .is_some_and(|code| gone.contains(&code))
}

/// A task that was killed while it stood still is not there to be resumed.
fn go_on(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result,
    }
}
