//! One container: its init, its execs, and what is being done to it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::guardian;
use super::ports::Ports;
use super::process::{Life, Phase, Process};
use super::stdio::PipeOwner;
use crate::cgroup::Cgroup;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::{RootfsMountRequest, Target};

/// What is being done to a container as a whole. At most one thing at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Activity {
    /// Nothing: it runs, or waits to be started.
    None,
    /// A Pause or Resume is under way.
    Switching,
    /// It is frozen at a client's wish.
    Paused(Pause),
    /// It is being checkpointed by the helper with this process id.
    Checkpointing {
        /// The helper.
        helper: i32,
        /// The pause that the checkpoint found, to go back to.
        paused: Option<Pause>,
    },
}

/// A client's pause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// When it was asked for.
    pub since: Instant,
    /// Somebody looked at the state since. A client that pauses only to
    /// checkpoint sends Pause and Checkpoint with nothing in between.
    pub noticed: bool,
}

impl Pause {
    /// Clients that checkpoint send Pause, Checkpoint and Resume in a row.
    const AT_ONCE: Duration = Duration::from_secs(5);

    /// The pause is part of a checkpoint, not a person's own.
    pub fn belongs_to_checkpoint(&self) -> bool {
        !self.noticed && self.since.elapsed() < Self::AT_ONCE
    }
}

/// A container of this shim.
pub struct Container {
    /// Its id and bundle.
    pub target: Target,
    /// Its snapshot's mounts.
    pub rootfs: Vec<RootfsMountRequest>,
    /// The world that it is to be, or was, brought back from.
    pub world: Option<PathBuf>,
    /// Its first process.
    pub init: Arc<Process>,
    /// Whose its pipes are.
    pub pipe_owner: PipeOwner,
    /// Its processes live in a process namespace of others (a pod's, the host's).
    pub shares_processes: bool,
    execs: Mutex<HashMap<String, Arc<Process>>>,
    activity: Mutex<Activity>,
    cgroup: Mutex<Option<Arc<Cgroup>>>,
    late_resume: AtomicBool,
    ports: Mutex<Option<Ports>>,
    memory: Mutex<Option<guardian::Source>>,
}

impl Container {
    /// A container that does not run yet.
    pub fn new(
        target: Target,
        spec: &Spec,
        rootfs: Vec<RootfsMountRequest>,
        world: Option<PathBuf>,
        init: Process,
        pipe_owner: PipeOwner,
        ports: Ports,
    ) -> Self {
        Container {
            target,
            rootfs,
            world,
            init: Arc::new(init),
            pipe_owner,
            shares_processes: shares_processes(spec),
            execs: Mutex::default(),
            activity: Mutex::new(Activity::None),
            cgroup: Mutex::default(),
            late_resume: AtomicBool::new(false),
            ports: Mutex::new(Some(ports)),
            memory: Mutex::default(),
        }
    }

    /// The init for an empty `exec_id`, else that exec.
    pub fn process(&self, exec_id: &str) -> Result<Arc<Process>> {
        if exec_id.is_empty() {
            return Ok(self.init.clone());
        }
        lock(&self.execs).get(exec_id).cloned().ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("exec {exec_id} of {} not found", self.target.id),
            )
        })
    }

    /// Registers an exec.
    pub fn add_exec(&self, process: Process) -> Result<Arc<Process>> {
        let mut execs = lock(&self.execs);
        if execs.contains_key(&process.exec_id) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("exec {} already exists", process.exec_id),
            ));
        }
        let process = Arc::new(process);
        execs.insert(process.exec_id.clone(), process.clone());
        Ok(process)
    }

    /// Forgets an exec.
    pub fn remove_exec(&self, exec_id: &str) {
        lock(&self.execs).remove(exec_id);
    }

    /// All execs at this moment.
    pub fn execs(&self) -> Vec<Arc<Process>> {
        lock(&self.execs).values().cloned().collect()
    }

    /// The control groups; they exist once init does.
    pub fn cgroup(&self) -> Result<Arc<Cgroup>> {
        if let Some(cgroup) = lock(&self.cgroup).clone() {
            return Ok(cgroup);
        }
        if self.init.pid().is_none() {
            return Err(self.wrong_state("has no process yet".to_owned()));
        }
        // By its path: init may have moved into a cgroup of its own below it.
        let cgroup = Arc::new(self.target.cgroup()?);
        *lock(&self.cgroup) = Some(cgroup.clone());
        Ok(cgroup)
    }

    /// Removes containerd's temporary copy of the world, which is not needed any more.
    pub fn drop_world(&self) {
        if let Some(world) = &self.world {
            super::temporary::remove(world);
        }
    }

    /// The published ports answer from now on.
    pub fn serve_ports(&self) -> Result<()> {
        match &mut *lock(&self.ports) {
            Some(ports) => ports.serve(self.init.life().pid),
            None => Ok(()),
        }
    }

    /// The published ports are free again.
    pub fn close_ports(&self) {
        lock(&self.ports).take();
    }

    /// What is being done to it.
    pub fn activity(&self) -> Activity {
        lock(&self.activity).clone()
    }

    /// Changes what is being done to it, or says why that cannot be.
    pub fn switch<T>(&self, change: impl FnOnce(&mut Activity) -> Result<T>) -> Result<T> {
        change(&mut lock(&self.activity))
    }

    /// Somebody looks at the state.
    pub fn notice(&self) {
        if let Activity::Paused(pause) = &mut *lock(&self.activity) {
            pause.noticed = true;
        }
    }

    /// It was brought back frozen, as its client wished: no instruction of it has run.
    pub fn begin_paused(&self) {
        *lock(&self.activity) = Activity::Paused(Pause {
            since: Instant::now(),
            noticed: true,
        });
    }

    /// Its memory comes from elsewhere.
    pub fn set_memory(&self, source: guardian::Source) {
        *lock(&self.memory) = Some(source);
    }

    /// Where its memory comes from, if not all of it was there from the start.
    pub fn memory(&self) -> Option<guardian::Source> {
        lock(&self.memory).clone()
    }

    /// It is frozen at a client's wish.
    pub fn is_paused(&self) -> bool {
        matches!(
            self.activity(),
            Activity::Paused(_)
                | Activity::Checkpointing {
                    paused: Some(_),
                    ..
                }
        )
    }

    /// We thawed what a client paused: its own Resume, still to come, is no error.
    pub fn expect_late_resume(&self) {
        self.late_resume.store(true, Ordering::Relaxed);
    }

    /// A Resume came: was it expected?
    pub fn take_late_resume(&self) -> bool {
        self.late_resume.swap(false, Ordering::Relaxed)
    }

    /// Fails unless init runs.
    pub fn must_run(&self) -> Result<()> {
        match self.init.life().phase {
            Phase::Running => Ok(()),
            phase => Err(self.wrong_state(format!("is {phase:?}").to_lowercase())),
        }
    }

    /// Fails unless a further process can be run in it: init is there, if only
    /// to wait for its start, and nothing keeps new processes from running.
    pub fn must_take_execs(&self) -> Result<()> {
        if self.is_paused() {
            return Err(self.wrong_state("is paused".to_owned()));
        }
        match self.init.life() {
            Life {
                phase: Phase::Stopped,
                ..
            } => self.must_run(),
            Life { pid: 0, .. } => self.must_run(),
            _ => Ok(()),
        }
    }

    /// An error that says which container is in the way of what was asked.
    pub fn wrong_state(&self, how: String) -> Error {
        Error::new(
            ErrorKind::WrongState,
            format!("container {} {how}", self.target.id),
        )
    }

    /// Sends a signal to one process.
    pub fn signal(&self, process: &Process, number: u32) -> Result<()> {
        let life = process.life();
        let gone = || {
            Error::new(
                ErrorKind::NotFound,
                format!("process already finished: {}", process.name()),
            )
        };
        // The reaper is the only one that frees a process id, and it tells
        // `life` of it in the same thread: an id found here is still ours.
        if life.exit.is_some() {
            return Err(gone());
        }
        let pid = Pid::from_raw(life.pid)
            .ok_or_else(|| self.wrong_state("has no process yet".to_owned()))?;
        let sent = match number {
            0 => test_kill_process(pid), // Only asks whether it is there.
            number => kill_process(pid, to_signal(number)?),
        };
        match sent {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::SRCH) => Err(gone()),
            Err(error) => Err(Error::caused_by(
                ErrorKind::Io,
                format!("send signal {number} to {}", process.name()),
                error,
            )),
        }
    }
}

/// A signal's number as the system knows it.
pub fn to_signal(number: u32) -> Result<Signal> {
    crate::sys::signal(number as i32).ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidInput,
            format!("there is no signal {number}"),
        )
    })
}

fn shares_processes(spec: &Spec) -> bool {
    let namespaces = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.namespaces().clone())
        .unwrap_or_default();
    !namespaces
        .iter()
        .any(|ns| ns.typ() == LinuxNamespaceType::Pid && ns.path().is_none())
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
