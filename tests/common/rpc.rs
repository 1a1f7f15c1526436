//! Calls of containerd's Task service that `ctr` has no command for.

use std::path::Path;

use containerd_client::services::v1::snapshots::MountsRequest;
use containerd_client::services::v1::{
    CheckpointTaskRequest, CloseIoRequest, CreateTaskRequest, DeleteTaskRequest,
    GetContainerRequest, GetRequest, KillRequest, ListPidsRequest, PauseTaskRequest,
    ResizePtyRequest, ResumeTaskRequest, StartRequest,
};
use containerd_client::tonic::{Request, Status};
use containerd_client::types::v1::Status as TaskStatus;
use containerd_client::{Client, with_namespace};
use containerd_shim::protos::protobuf::Message;
use containerd_shim::protos::shim::oci;
use prost_types::Any;

const SOCKET: &str = "/run/containerd/containerd.sock";

/// A connection to containerd for one thread.
pub struct Containerd {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

/// A task's standard streams, as containerd hands them to a shim; empty is none.
#[derive(Debug, Clone, Default)]
pub struct Streams {
    pub stdin: String,
    pub stdout: String,
    pub stderr: String,
    pub terminal: bool,
}

macro_rules! send {
    ($self:ident, $method:ident, $request:expr) => {{
        let mut tasks = $self.client.tasks();
        let answer = $self
            .runtime
            .block_on(async { tasks.$method(with_namespace!($request, "default")).await });
        answer.map(|answer| answer.into_inner())
    }};
}

impl Containerd {
    pub fn connect() -> Containerd {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let client = runtime
            .block_on(Client::from_path(SOCKET))
            .expect("reach containerd");
        Containerd { runtime, client }
    }

    /// A checkpoint without any options: containerd stores what it gets.
    pub fn checkpoint(&self, id: &str) -> Result<(), Status> {
        let request = CheckpointTaskRequest {
            container_id: id.to_owned(),
            ..Default::default()
        };
        send!(self, checkpoint, request).map(drop)
    }

    /// A checkpoint with options; with an `image_path` nothing is stored.
    pub fn checkpoint_with(
        &self,
        id: &str,
        options: &oci::CheckpointOptions,
    ) -> Result<(), Status> {
        let options = any("containerd.runc.v1.CheckpointOptions", options);
        let request = CheckpointTaskRequest {
            container_id: id.to_owned(),
            options,
            ..Default::default()
        };
        send!(self, checkpoint, request).map(drop)
    }

    /// A checkpoint into a folder, without a pause around it.
    pub fn checkpoint_to(&self, id: &str, path: &Path) -> Result<(), Status> {
        let image_path = path.to_string_lossy().into_owned();
        self.checkpoint_with(
            id,
            &oci::CheckpointOptions {
                image_path,
                ..Default::default()
            },
        )
    }

    /// Makes a task of a container, from the world in a folder where one is given.
    pub fn create(&self, id: &str, world: Option<&Path>, streams: &Streams) -> Result<(), Status> {
        let rootfs = self.runtime.block_on(self.mounts(id))?;
        let options = world.and_then(|world| {
            let criu_image_path = world.to_string_lossy().into_owned();
            any(
                "containerd.runc.v1.Options",
                &oci::Options {
                    criu_image_path,
                    ..Default::default()
                },
            )
        });
        let request = CreateTaskRequest {
            container_id: id.to_owned(),
            rootfs,
            options,
            stdin: streams.stdin.clone(),
            stdout: streams.stdout.clone(),
            stderr: streams.stderr.clone(),
            terminal: streams.terminal,
            ..Default::default()
        };
        send!(self, create, request).map(drop)
    }

    pub fn start(&self, id: &str) -> Result<u32, Status> {
        let request = StartRequest {
            container_id: id.to_owned(),
            ..Default::default()
        };
        send!(self, start, request).map(|answer| answer.pid)
    }

    /// The task's status and exit status.
    pub fn state(&self, id: &str) -> Result<(TaskStatus, u32), Status> {
        let request = GetRequest {
            container_id: id.to_owned(),
            ..Default::default()
        };
        let process = send!(self, get, request)?.process.unwrap_or_default();
        Ok((
            TaskStatus::try_from(process.status).unwrap_or_default(),
            process.exit_status,
        ))
    }

    pub fn pids(&self, id: &str) -> Result<usize, Status> {
        let request = ListPidsRequest {
            container_id: id.to_owned(),
        };
        send!(self, list_pids, request).map(|answer| answer.processes.len())
    }

    pub fn kill(&self, id: &str, signal: u32) -> Result<(), Status> {
        let request = KillRequest {
            container_id: id.to_owned(),
            signal,
            ..Default::default()
        };
        send!(self, kill, request).map(drop)
    }

    pub fn close_stdin(&self, id: &str) -> Result<(), Status> {
        let request = CloseIoRequest {
            container_id: id.to_owned(),
            stdin: true,
            ..Default::default()
        };
        send!(self, close_io, request).map(drop)
    }

    pub fn resize(&self, id: &str, width: u32, height: u32) -> Result<(), Status> {
        let request = ResizePtyRequest {
            container_id: id.to_owned(),
            width,
            height,
            ..Default::default()
        };
        send!(self, resize_pty, request).map(drop)
    }

    pub fn pause(&self, id: &str) -> Result<(), Status> {
        send!(
            self,
            pause,
            PauseTaskRequest {
                container_id: id.to_owned()
            }
        )
        .map(drop)
    }

    pub fn resume(&self, id: &str) -> Result<(), Status> {
        send!(
            self,
            resume,
            ResumeTaskRequest {
                container_id: id.to_owned()
            }
        )
        .map(drop)
    }

    /// Deletes the task and gives its exit status.
    pub fn delete(&self, id: &str) -> Result<u32, Status> {
        send!(
            self,
            delete,
            DeleteTaskRequest {
                container_id: id.to_owned()
            }
        )
        .map(|answer| answer.exit_status)
    }

    async fn mounts(&self, id: &str) -> Result<Vec<containerd_client::types::Mount>, Status> {
        let request = GetContainerRequest { id: id.to_owned() };
        let container = self
            .client
            .containers()
            .get(with_namespace!(request, "default"))
            .await?;
        let container = container.into_inner().container.unwrap_or_default();
        let request = MountsRequest {
            snapshotter: container.snapshotter,
            key: container.snapshot_key,
        };
        let mounts = self
            .client
            .snapshots()
            .mounts(with_namespace!(request, "default"))
            .await?;
        Ok(mounts.into_inner().mounts)
    }
}

fn any(name: &str, message: &impl Message) -> Option<Any> {
    let value = message.write_to_bytes().expect("encode options");
    Some(Any {
        type_url: name.to_owned(),
        value,
    })
}
