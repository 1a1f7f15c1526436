//! The ttrpc Task service: decodes a request, calls the plain method, encodes
//! the answer. An error becomes the status of its kind.

use async_trait::async_trait;
use containerd_shim::asynchronous::io::Stdio;
use containerd_shim::protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, ExecProcessRequest, KillRequest,
    PauseRequest, PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest,
    StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse,
    UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim::protos::protobuf::well_known_types::empty::Empty;
use containerd_shim::protos::ttrpc;
use containerd_shim::{Task, TtrpcContext};

use super::events::timestamp;
use super::stdio::resize;
use super::tasks::Tasks;
use crate::error::{Error, ErrorKind, Result};

type Answer<T> = ttrpc::Result<T>;

#[async_trait]
impl Task for Tasks {
    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> Answer<StateResponse> {
        let found = self.container(&request.id).and_then(|container| {
            let process = container.process(&request.exec_id)?;
            Ok((container, process))
        });
        let (container, process) = found.map_err(status)?;
        container.notice();
        let life = process.life();
        let stdio = &process.stdio;
        let exit = life.exit;
        Ok(StateResponse {
            id: container.target.id.clone(),
            bundle: container.target.bundle.to_string_lossy().into_owned(),
            pid: life.pid as u32,
            status: self.status(&container, &process).into(),
            stdin: stdio.stdin.clone(),
            stdout: stdio.stdout.clone(),
            stderr: stdio.stderr.clone(),
            terminal: stdio.terminal,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exit.map(|exit| timestamp(exit.at)).into(),
            exec_id: process.exec_id.clone(),
            ..Default::default()
        })
    }

    async fn create(
        &self,
        _: &TtrpcContext,
        request: CreateTaskRequest,
    ) -> Answer<CreateTaskResponse> {
        let tasks = self.clone();
        let made = to_the_end(async move { Tasks::create(&tasks, request).await });
        let pid = made.await.map_err(status)?;
        Ok(CreateTaskResponse {
            pid,
            ..Default::default()
        })
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> Answer<StartResponse> {
        let tasks = self.clone();
        let StartRequest { id, exec_id, .. } = request;
        let started = to_the_end(async move { Tasks::start(&tasks, &id, &exec_id).await });
        let pid = started.await.map_err(status)?;
        Ok(StartResponse {
            pid,
            ..Default::default()
        })
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> Answer<DeleteResponse> {
        let tasks = self.clone();
        let DeleteRequest { id, exec_id, .. } = request;
        let deleted = to_the_end(async move { Tasks::delete(&tasks, &id, &exec_id).await });
        let (pid, exit) = deleted.await.map_err(status)?;
        Ok(DeleteResponse {
            pid,
            exit_status: exit.status,
            exited_at: Some(timestamp(exit.at)).into(),
            ..Default::default()
        })
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> Answer<PidsResponse> {
        Ok(PidsResponse {
            processes: Tasks::pids(self, &request.id).await.map_err(status)?,
            ..Default::default()
        })
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> Answer<Empty> {
        let tasks = self.clone();
        nothing(to_the_end(async move { Tasks::pause(&tasks, &request.id).await }).await)
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> Answer<Empty> {
        let tasks = self.clone();
        nothing(to_the_end(async move { Tasks::resume(&tasks, &request.id).await }).await)
    }

    async fn checkpoint(&self, _: &TtrpcContext, request: CheckpointTaskRequest) -> Answer<Empty> {
        let tasks = self.clone();
        nothing(to_the_end(async move { Tasks::checkpoint(&tasks, request).await }).await)
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> Answer<Empty> {
        let KillRequest {
            id,
            exec_id,
            signal,
            all,
            ..
        } = request;
        let tasks = self.clone();
        let kill = async move { Tasks::kill(&tasks, &id, &exec_id, signal, all).await };
        nothing(to_the_end(kill).await)
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> Answer<Empty> {
        let stdio = Stdio::new(
            &request.stdin,
            &request.stdout,
            &request.stderr,
            request.terminal,
        );
        let spec = request.spec.value.as_slice();
        nothing(Tasks::exec(self, &request.id, &request.exec_id, stdio, spec).await)
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> Answer<Empty> {
        let process = self
            .container(&request.id)
            .and_then(|container| container.process(&request.exec_id))
            .map_err(status)?;
        match process.terminal() {
            Some(pty) => nothing(resize(&pty, request.width, request.height)),
            None => Ok(Empty::new()),
        }
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> Answer<Empty> {
        let process = self
            .container(&request.id)
            .and_then(|container| container.process(&request.exec_id))
            .map_err(status)?;
        if request.stdin {
            process.io.close_input();
        }
        Ok(Empty::new())
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> Answer<Empty> {
        let tasks = self.clone();
        let update =
            async move { Tasks::update(&tasks, &request.id, &request.resources.value).await };
        nothing(to_the_end(update).await)
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> Answer<WaitResponse> {
        let process = self
            .container(&request.id)
            .and_then(|container| container.process(&request.exec_id))
            .map_err(status)?;
        let exit = process.wait().await;
        Ok(WaitResponse {
            exit_status: exit.status,
            exited_at: Some(timestamp(exit.at)).into(),
            ..Default::default()
        })
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> Answer<StatsResponse> {
        Ok(StatsResponse {
            stats: Some(Tasks::stats(self, &request.id).await.map_err(status)?).into(),
            ..Default::default()
        })
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> Answer<ConnectResponse> {
        let container = self.container(&request.id).map_err(status)?;
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: container.init.life().pid as u32,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> Answer<Empty> {
        if self.is_empty() {
            self.exit.signal();
        }
        Ok(Empty::new())
    }
}

/// Does what a call asks for to its end, also when nobody waits for it any more:
/// ttrpc drops the calls of a connection that breaks and those whose time is
/// over, in the middle of whatever they were doing.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|error| Err(Error::caused_by(ErrorKind::Internal, "do the call", error)))
}

fn nothing(result: Result<()>) -> Answer<Empty> {
    result.map(|()| Empty::new()).map_err(status)
}

/// The one way from an error to a ttrpc status.
fn status(error: Error) -> ttrpc::Error {
    let code = match error.kind().codes().grpc {
        3 => ttrpc::Code::INVALID_ARGUMENT,
        4 => ttrpc::Code::DEADLINE_EXCEEDED,
        5 => ttrpc::Code::NOT_FOUND,
        6 => ttrpc::Code::ALREADY_EXISTS,
        8 => ttrpc::Code::RESOURCE_EXHAUSTED,
        9 => ttrpc::Code::FAILED_PRECONDITION,
        10 => ttrpc::Code::ABORTED,
        13 => ttrpc::Code::INTERNAL,
        14 => ttrpc::Code::UNAVAILABLE,
        15 => ttrpc::Code::DATA_LOSS,
        _ => ttrpc::Code::UNKNOWN,
    };
    ttrpc::Error::RpcStatus(ttrpc::get_status(code, error.to_string()))
}
