//! One process that containerd knows: a container's init, or an exec.
//!
//! Its life is one value, [`Life`], in a watch channel: whoever waits for a
//! change (the Wait call, the exit event, the end of a Start) watches it.

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use containerd_shim::asynchronous::io::{IoTasks, Pty, Stdio};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::reaper::Exit;
use crate::error::{Error, ErrorKind, Result};

/// Where a process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Known; for an init, waiting to be told to run.
    Created,
    /// A Start call is under way. The exit event waits for its end.
    Starting,
    /// Started.
    Running,
    /// Ended, or never came to life.
    Stopped,
}

/// A process's state.
#[derive(Debug, Clone, Copy)]
pub struct Life {
    /// Process id on the host; 0 as long as there is none.
    pub pid: i32,
    /// How far it got. An exit during Starting shows in `exit` first.
    pub phase: Phase,
    /// How it ended.
    pub exit: Option<Exit>,
    /// Its exit event has been handed to the publisher.
    pub reported: bool,
}

/// A container's init or an exec'd process.
pub struct Process {
    /// The exec's id; empty for init.
    pub exec_id: String,
    /// What containerd gave for stdin, stdout, stderr.
    pub stdio: Stdio,
    /// The copies between those and the process.
    pub io: IoTasks,
    life: watch::Sender<Life>,
    terminal: Mutex<Option<Arc<Pty>>>,
    logs: Mutex<Vec<JoinHandle<()>>>,
}

/// How long output under way may take to arrive after the process's end.
const DRAIN: Duration = Duration::from_secs(10);

impl Process {
    /// A process that containerd has told of and that has no process id yet.
    pub fn new(exec_id: &str, stdio: Stdio) -> Self {
        Process {
            exec_id: exec_id.to_owned(),
            stdio,
            io: IoTasks::default(),
            life: watch::Sender::new(Life {
                pid: 0,
                phase: Phase::Created,
                exit: None,
                reported: false,
            }),
            terminal: Mutex::new(None),
            logs: Mutex::new(Vec::new()),
        }
    }

    /// Its state at this moment.
    pub fn life(&self) -> Life {
        *self.life.borrow()
    }

    /// Its process id, if it lives or lived.
    pub fn pid(&self) -> Option<i32> {
        Some(self.life().pid).filter(|pid| *pid > 0)
    }

    /// Takes note of the process id.
    pub fn set_pid(&self, pid: i32) {
        self.life.send_modify(|life| life.pid = pid);
    }

    /// Moves from Created to Starting, or says why that cannot be.
    pub fn begin_start(&self) -> Result<()> {
        let mut found = Phase::Created;
        let moved = self.life.send_if_modified(|life| {
            found = life.phase;
            let may = life.phase == Phase::Created && life.exit.is_none();
            if may {
                life.phase = Phase::Starting;
            }
            may
        });
        if moved {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::WrongState,
            format!("{} cannot be started: it is {found:?}", self.name()).to_lowercase(),
        ))
    }

    /// Ends a successful Start.
    pub fn started(&self) {
        self.life.send_modify(|life| {
            life.phase = match life.exit {
                Some(_) => Phase::Stopped,
                None => Phase::Running,
            }
        });
    }

    /// Takes note of the process's end. During a Start the phase stays.
    pub fn ended(&self, exit: Exit) {
        self.life.send_modify(|life| {
            life.exit = Some(exit);
            if life.phase != Phase::Starting {
                life.phase = Phase::Stopped;
            }
        });
    }

    /// Ends a Start that failed.
    pub fn failed(&self, exit: Exit) {
        self.life.send_modify(|life| {
            life.exit.get_or_insert(exit);
            life.phase = Phase::Stopped;
        });
    }

    /// Takes note that the exit event went out.
    pub fn reported(&self) {
        self.life.send_modify(|life| life.reported = true);
    }

    /// Waits for the process's end.
    pub async fn wait(&self) -> Exit {
        self.until(|life| life.exit.is_some() && life.phase == Phase::Stopped)
            .await;
        self.life().exit.unwrap_or(Exit {
            status: 255,
            at: std::time::SystemTime::now(),
        })
    }

    /// Waits for a state.
    pub async fn until(&self, reached: impl FnMut(&Life) -> bool) {
        // The sender lives as long as `self`, so this ends only when it is reached.
        let _ = self.life.subscribe().wait_for(reached).await;
    }

    /// The terminal's master, if it has one.
    pub fn terminal(&self) -> Option<Arc<Pty>> {
        lock(&self.terminal).clone()
    }

    /// Keeps the terminal's master.
    pub fn set_terminal(&self, pty: Pty) {
        *lock(&self.terminal) = Some(Arc::new(pty));
    }

    /// Copies `output` to the end of a log file until the process closes it.
    pub fn copy_to_log(&self, mut output: pipe::Receiver, mut log: std::fs::File) {
        let copy = tokio::spawn(async move {
            let mut chunk = vec![0; 32 << 10];
            while let Ok(n @ 1..) = output.read(&mut chunk).await {
                // A full disk must not stop the container: what does not fit is lost.
                let _ = log.write_all(&chunk[..n]);
            }
        });
        lock(&self.logs).push(copy);
    }

    /// Ends the copies and lets go of the terminal. `drain` lets output that
    /// is still under way arrive first, for 10 s at most.
    pub async fn close(&self, drain: bool) {
        let logs = std::mem::take(&mut *lock(&self.logs));
        for log in logs {
            let stop = log.abort_handle();
            if !drain || tokio::time::timeout(DRAIN, log).await.is_err() {
                stop.abort();
            }
        }
        if drain {
            self.io.shutdown().await;
        } else {
            self.io.abort().await;
        }
        lock(&self.terminal).take();
    }

    /// How to call it in a message.
    pub fn name(&self) -> String {
        match self.exec_id.as_str() {
            "" => "the container's init".to_owned(),
            exec => format!("the exec {exec}"),
        }
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
