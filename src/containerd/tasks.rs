//! Tasks: the running side of containers.

use std::path::{Path, PathBuf};

use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    CheckpointTaskRequest, CreateTaskRequest, DeleteTaskRequest, GetRequest, KillRequest,
    StartRequest, WaitRequest,
};
use containerd_client::types::v1::Status;
use containerd_shim::protos::protobuf::Message;
use containerd_shim::protos::shim::oci;
use prost_types::Any;

use super::Namespace;
use super::containers::{Container, gone_is_fine};
use crate::error::{Error, ErrorKind, Result};

/// What a checkpoint is asked for; the policy of annotations and the host's
/// configuration holds where nothing is wished.
#[derive(Debug, Clone, Default)]
pub struct CheckpointWishes {
    /// The folder that becomes the world.
    pub world: PathBuf,
    /// End the container once its world is safe.
    pub exit: bool,
    /// Allow file locks.
    pub file_locks: bool,
    /// Allow established connections to outside.
    pub tcp: bool,
}

/// A task's standard streams: fifos or log URIs; empty for none.
#[derive(Debug, Clone, Default)]
pub struct Streams {
    /// Standard input.
    pub stdin: String,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Streams {
    /// No input, and all output to the log at a URI; to nowhere without one.
    pub fn to_log(uri: Option<&str>) -> Streams {
        let log = uri.unwrap_or_default().to_owned();
        Streams {
            stdin: String::new(),
            stdout: log.clone(),
            stderr: log,
        }
    }
}

/// What a task is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    /// Made, not started.
    Created,
    /// It runs.
    Running,
    /// It stands still.
    Paused,
    /// It has ended, and waits to be deleted.
    Stopped,
}

impl Namespace<'_> {
    /// What a container's task is doing; `None` when it has none.
    pub fn task(&self, id: &str) -> Result<Option<TaskState>> {
        let mut client = TasksClient::new(self.containerd.channel.clone());
        let get = self.request(GetRequest {
            container_id: id.to_owned(),
            ..Default::default()
        });
        let answer = self.ask(format!("task {id}"), async move { client.get(get).await });
        let process = match answer {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            answer => answer?.process.unwrap_or_default(),
        };
        match Status::try_from(process.status) {
            Ok(Status::Created) => Ok(Some(TaskState::Created)),
            Ok(Status::Running) => Ok(Some(TaskState::Running)),
            Ok(Status::Paused | Status::Pausing) => Ok(Some(TaskState::Paused)),
            Ok(Status::Stopped) => Ok(Some(TaskState::Stopped)),
            _ => Err(Error::new(
                ErrorKind::WrongState,
                format!("task {id} is in a state unknown to containerd"),
            )),
        }
    }

    /// The task's output, as far as it does not end with the client that made it: log URIs.
    pub fn log_streams(&self, id: &str) -> Result<Streams> {
        let mut client = TasksClient::new(self.containerd.channel.clone());
        let get = self.request(GetRequest {
            container_id: id.to_owned(),
            ..Default::default()
        });
        let answer = self.ask(format!("task {id}"), async move { client.get(get).await });
        let process = match answer {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Streams::default()),
            answer => answer?.process.unwrap_or_default(),
        };
        let log = |uri: String| match uri.contains("://") {
            true => uri,
            false => String::new(),
        };
        Ok(Streams {
            stdin: String::new(),
            stdout: log(process.stdout),
            stderr: log(process.stderr),
        })
    }

    /// Has the shim write a running container as a world into a folder.
    pub fn checkpoint(&self, id: &str, wishes: &CheckpointWishes) -> Result<()> {
        let options = oci::CheckpointOptions {
            exit: wishes.exit,
            file_locks: wishes.file_locks,
            open_tcp: wishes.tcp,
            image_path: text(&wishes.world)?,
            ..Default::default()
        };
        let mut client = TasksClient::new(self.containerd.channel.clone());
        let checkpoint = self.request(CheckpointTaskRequest {
            container_id: id.to_owned(),
            options: Some(any("containerd.runc.v1.CheckpointOptions", &options)?),
            ..Default::default()
        });
        let what = format!("checkpoint {id}");
        self.ask_patiently(what, async move { client.checkpoint(checkpoint).await })?;
        Ok(())
    }

    /// A task of `container` from the world in a folder; [`Namespace::start_task`]
    /// brings it back.
    pub fn create_task(
        &self,
        container: &Container,
        world: &Path,
        streams: &Streams,
    ) -> Result<()> {
        let options = oci::Options {
            criu_image_path: text(world)?,
            ..Default::default()
        };
        let rootfs = match container.snapshot_key.as_str() {
            "" => Vec::new(),
            key => self.mounts(&container.snapshotter, key)?,
        };
        let process = container.spec.process().as_ref();
        let create = self.request(CreateTaskRequest {
            container_id: container.id.clone(),
            rootfs,
            stdin: streams.stdin.clone(),
            stdout: streams.stdout.clone(),
            stderr: streams.stderr.clone(),
            terminal: process
                .and_then(|process| process.terminal())
                .unwrap_or(false),
            options: Some(any("containerd.runc.v1.Options", &options)?),
            ..Default::default()
        });
        let mut client = TasksClient::new(self.containerd.channel.clone());
        let what = format!("restore {}", container.id);
        self.ask_patiently(what, async move { client.create(create).await })?;
        Ok(())
    }

    /// Starts a task and gives its init's process id.
    pub fn start_task(&self, id: &str) -> Result<u32> {
        let mut client = TasksClient::new(self.containerd.channel.clone());
        let start = self.request(StartRequest {
            container_id: id.to_owned(),
            ..Default::default()
        });
        let what = format!("start {id}");
        let started = self.ask_patiently(what, async move { client.start(start).await })?;
        Ok(started.pid)
    }

    /// Kills every process of a task and waits for the end; one that is gone is no error.
    pub fn kill_task(&self, id: &str) -> Result<()> {
        let mut client = TasksClient::new(self.containerd.channel.clone());
        let kill = self.request(KillRequest {
            container_id: id.to_owned(),
            signal: 9,
            all: true,
            ..Default::default()
        });
        let wait = self.request(WaitRequest {
            container_id: id.to_owned(),
            ..Default::default()
        });
        gone_is_fine(self.ask(format!("kill {id}"), async move {
            client.kill(kill).await?;
            client.wait(wait).await
        }))
    }

    /// Deletes a stopped task; one that is gone is no error.
    pub fn delete_task(&self, id: &str) -> Result<()> {
        let mut client = TasksClient::new(self.containerd.channel.clone());
        let delete = self.request(DeleteTaskRequest {
            container_id: id.to_owned(),
        });
        let what = format!("delete task {id}");
        gone_is_fine(self.ask(what, async move { client.delete(delete).await }))
    }
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        let text = format!("{} is not UTF-8, as containerd needs it", path.display());
        Error::new(ErrorKind::InvalidInput, text)
    })
}

fn any(name: &str, message: &impl Message) -> Result<Any> {
    let value = message
        .write_to_bytes()
        .map_err(|error| Error::caused_by(ErrorKind::Internal, format!("encode {name}"), error))?;
    Ok(Any {
        type_url: name.to_owned(),
        value,
    })
}
