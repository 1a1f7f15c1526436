//! The one place that reaps children.
//!
//! Invariant: nothing else in this process calls `wait` on a child. The shim is
//! a subreaper, so it also becomes the parent of processes that it never
//! spawned (a container's init, exec'd processes); their exits may come before
//! anybody asks for them, and are kept until then.

use std::collections::HashMap;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, WaitOptions, WaitStatus, wait};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::error::{ErrorKind, IoContext, Result};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, or 128 + the signal that killed it.
    pub status: u32,
    /// When it was reaped.
    pub at: SystemTime,
}

/// How long the exit of a process nobody asked for is kept.
const KEEP_UNCLAIMED: Duration = Duration::from_secs(60);

/// Hands each child's exit to the one that waits for it.
#[derive(Default)]
pub struct Reaper {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: HashMap<i32, oneshot::Sender<Exit>>,
    unclaimed: HashMap<i32, (Exit, Instant)>,
}

/// A child's exit, to be awaited.
pub type ExitReceiver = oneshot::Receiver<Exit>;

impl Reaper {
    /// Starts `command` and returns its process id and its exit to come.
    pub fn spawn(&self, command: &mut Command) -> Result<(i32, ExitReceiver)> {
        // The lock keeps the reaper from missing a child that ends at once.
        let mut state = self.lock();
        let child = command
            .spawn()
            .context(|| format!("run {}", command.get_program().display()))?;
        let pid = child.id() as i32;
        Ok((pid, state.wait_for(pid)))
    }

    /// Asks for the exit of a process that became, or is becoming, our child.
    pub fn claim(&self, pid: i32) -> ExitReceiver {
        let mut state = self.lock();
        let receiver = state.wait_for(pid);
        if let Some((exit, _)) = state.unclaimed.remove(&pid) {
            state.deliver(pid, exit);
        }
        receiver
    }

    /// Reaps for as long as the process lives.
    pub async fn run(&self, mut child_ended: Signal) {
        loop {
            self.reap_all();
            if child_ended.recv().await.is_none() {
                return;
            }
        }
    }

    fn reap_all(&self) {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.reaped(pid, status),
                Ok(None) => return,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    fn reaped(&self, pid: Pid, status: WaitStatus) {
        let code = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => code as u32,
            (None, Some(signal)) => 128 + signal as u32,
            // Stopped or continued: still our child.
            (None, None) => return,
        };
        let exit = Exit {
            status: code,
            at: SystemTime::now(),
        };
        self.lock().deliver(pid.as_raw_nonzero().get(), exit);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    fn wait_for(&mut self, pid: i32) -> ExitReceiver {
        let (sender, receiver) = oneshot::channel();
        self.waiting.insert(pid, sender);
        receiver
    }

    fn deliver(&mut self, pid: i32, exit: Exit) {
        if let Some(waiter) = self.waiting.remove(&pid) {
            // The one that waited may have given up.
            let _ = waiter.send(exit);
            return;
        }
        self.unclaimed
            .retain(|_, (_, seen)| seen.elapsed() < KEEP_UNCLAIMED);
        self.unclaimed.insert(pid, (exit, Instant::now()));
    }
}

/// Subscribes to SIGCHLD. To be called before the first child is spawned.
pub fn child_signal() -> Result<Signal> {
    signal(SignalKind::child()).map_err(|error| {
        crate::error::Error::caused_by(ErrorKind::Internal, "subscribe to SIGCHLD", error)
    })
}
