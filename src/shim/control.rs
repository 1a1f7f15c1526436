//! Signals, pause and resume, limits, and questions about a container.

use std::sync::Arc;
use std::time::{Duration, Instant};

use containerd_shim::protos::api::{ProcessInfo, Status};
use containerd_shim::protos::events::task::{TaskPaused, TaskResumed};
use containerd_shim::protos::protobuf::Message;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::shim::oci::ProcessDetails;
use rustix::process::{Pid, Signal, kill_process};

use super::container::{Activity, Container, Pause, to_signal};
use super::helper::{self, Request, Streams};
use super::process::{Phase, Process};
use super::tasks::Tasks;
use crate::cgroup::Cgroup;
use crate::error::{Error, ErrorKind, Result};

/// How long a container's processes may take to stand still.
pub(super) const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);

impl Tasks {
    /// Sends a signal to a process, or to all of the container's.
    pub async fn kill(&self, id: &str, exec_id: &str, signal: u32, all: bool) -> Result<()> {
        let container = self.container(id)?;
        let process = container.process(exec_id)?;
        let fatal = signal == Signal::KILL.as_raw() as u32;
        if fatal && let Activity::Checkpointing { helper, .. } = container.activity() {
            // The helper's end ends CRIU; the checkpoint call then thaws.
            kill_helper(helper);
        }
        if all {
            let signal = to_signal(signal)?;
            let cgroup = container.cgroup()?;
            blocking(move || cgroup.signal_all(signal).map(|_| ())).await?;
        } else {
            container.signal(&process, signal)?;
        }
        if fatal {
            // A frozen process dies only when it is thawed (cgroup v1).
            self.thaw_to_die(&container).await;
        }
        Ok(())
    }

    async fn thaw_to_die(&self, container: &Arc<Container>) {
        if let Activity::Paused(_) = container.activity()
            && let Ok(cgroup) = container.cgroup()
        {
            let _ = blocking(move || thaw(&cgroup)).await;
        }
    }

    /// Freezes the container.
    pub async fn pause(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        container.must_run()?;
        let since = Instant::now();
        container.switch(|activity| match activity {
            Activity::None => {
                *activity = Activity::Switching;
                Ok(())
            }
            Activity::Paused(_) => Err(container.wrong_state("is already paused".to_owned())),
            _ => Err(container.wrong_state("is busy with a pause or checkpoint".to_owned())),
        })?;
        let cgroup = container.cgroup()?;
        let frozen = blocking(move || {
            cgroup.freeze(FREEZE_TIMEOUT)?.leave_frozen();
            Ok(())
        })
        .await;
        let next = match frozen {
            Ok(()) => Activity::Paused(Pause {
                since,
                noticed: false,
            }),
            Err(_) => Activity::None,
        };
        container.switch(|activity| {
            *activity = next;
            Ok(())
        })?;
        frozen?;
        self.events.publish(TaskPaused {
            container_id: id.to_owned(),
            ..Default::default()
        });
        Ok(())
    }

    /// Thaws the container. One that has ended, or that a checkpoint has
    /// thawed already, is no error: the client that paused it says Resume anyway.
    pub async fn resume(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        if container.init.life().phase == Phase::Stopped {
            return Ok(());
        }
        let paused = container.switch(|activity| match activity {
            Activity::Paused(_) => {
                *activity = Activity::Switching;
                Ok(true)
            }
            Activity::None => Ok(false),
            _ => Err(container.wrong_state("is busy with a pause or checkpoint".to_owned())),
        })?;
        if !paused {
            if container.take_late_resume() {
                return Ok(());
            }
            return Err(container.wrong_state("is not paused".to_owned()));
        }
        self.end_pause(&container).await
    }

    /// Thaws and tells.
    pub(super) async fn end_pause(&self, container: &Arc<Container>) -> Result<()> {
        let cgroup = container.cgroup()?;
        let thawed = blocking(move || thaw(&cgroup)).await;
        container.switch(|activity| {
            *activity = Activity::None;
            Ok(())
        })?;
        thawed?;
        self.events.publish(TaskResumed {
            container_id: container.target.id.clone(),
            ..Default::default()
        });
        Ok(())
    }

    /// The status that containerd shows.
    pub fn status(&self, container: &Container, process: &Process) -> Status {
        match process.life().phase {
            Phase::Created | Phase::Starting => Status::CREATED,
            Phase::Stopped => Status::STOPPED,
            Phase::Running if container.is_paused() => Status::PAUSED,
            Phase::Running => Status::RUNNING,
        }
    }

    /// The container's processes, with the exec ids of those that have one.
    ///
    /// Never empty as long as the task exists: containerd, when it restarts,
    /// throws away a shim that answers with nothing.
    pub async fn pids(&self, id: &str) -> Result<Vec<ProcessInfo>> {
        let container = self.container(id)?;
        let mut pids: Vec<u32> = match container.cgroup() {
            Ok(cgroup) => blocking(move || cgroup.pids())
                .await
                .unwrap_or_default()
                .into_iter()
                .map(|pid| pid.as_raw_nonzero().get() as u32)
                .collect(),
            Err(_) => Vec::new(),
        };
        if pids.is_empty() {
            pids.push(match container.init.pid() {
                Some(pid) => pid as u32,
                // Waiting for its restore: the shim stands for it.
                None => std::process::id(),
            });
        }
        let execs = container.execs();
        pids.into_iter()
            .map(|pid| process_info(pid, &execs))
            .collect()
    }

    /// Usage figures, as containerd's cgroup metrics.
    pub async fn stats(&self, id: &str) -> Result<Any> {
        let container = self.container(id)?;
        let cgroup = container.cgroup()?;
        blocking(move || cgroup.stats()).await
    }

    /// Changes limits. `resources` is an OCI `linux.resources` object in JSON.
    pub async fn update(&self, id: &str, resources: &[u8]) -> Result<()> {
        let container = self.container(id)?;
        let target = container.target.clone();
        let resources = serde_json::from_slice(resources).map_err(|error| {
            Error::caused_by(ErrorKind::InvalidInput, "decode the resources", error)
        })?;
        let request = Request::Update { target, resources };
        helper::run(&self.reaper, &request, Streams::default())
            .await
            .map(|_| ())
    }
}

/// Runs something that may take a while on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::caused_by(ErrorKind::Internal, "work in the background", error))?
}

pub(super) fn thaw(cgroup: &Cgroup) -> Result<()> {
    cgroup.freezer()?.thaw().map(|_| ())
}

pub(super) fn kill_helper(helper: i32) {
    if let Some(pid) = Pid::from_raw(helper) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn process_info(pid: u32, execs: &[Arc<Process>]) -> Result<ProcessInfo> {
    let mut info = ProcessInfo {
        pid,
        ..Default::default()
    };
    if let Some(exec) = execs.iter().find(|exec| exec.life().pid as u32 == pid) {
        let details = ProcessDetails {
            exec_id: exec.exec_id.clone(),
            ..Default::default()
        };
        let value = details.write_to_bytes().map_err(|error| {
            Error::caused_by(ErrorKind::Internal, "encode the process details", error)
        })?;
        info.info = Some(Any {
            type_url: "containerd.runc.v1.ProcessDetails".to_owned(),
            value,
            ..Default::default()
        })
        .into();
    }
    Ok(info)
}
