//! Calls of containerd's Task service that `ctr` has no command for.
//!
//! ```text
//! rpc create ID                  a task, not started, of a container with a snapshot
//! rpc start ID [EXEC]
//! rpc exec ID EXEC PROCESS-JSON  registers only
//! rpc state ID [EXEC]            prints status and exit status
//! rpc wait ID [EXEC]             prints the exit status
//! rpc kill ID SIGNAL [EXEC]      any number
//! rpc delete ID [EXEC]           prints the exit status
//! rpc close-stdin ID [EXEC]
//! rpc resize ID WIDTH HEIGHT
//! rpc update ID RESOURCES-JSON
//! rpc pids ID                    prints how many
//! ```

use std::process::ExitCode;

use containerd_client::services::v1::snapshots::MountsRequest;
use containerd_client::services::v1::{
    CloseIoRequest, CreateTaskRequest, DeleteProcessRequest, DeleteTaskRequest, ExecProcessRequest,
    GetContainerRequest, GetRequest, KillRequest, ListPidsRequest, ResizePtyRequest, StartRequest,
    UpdateTaskRequest, WaitRequest,
};
use containerd_client::tonic::{Request, Status};
use containerd_client::types::v1::Status as TaskStatus;
use containerd_client::{Client, with_namespace};
use prost_types::Any;

/// First argument of the test binary when it is to make a call.
pub const ARGUMENT: &str = "rpc";
const SOCKET: &str = "/run/containerd/containerd.sock";
const RESOURCES: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
const PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// Makes the call that the words say.
pub fn main(words: impl Iterator<Item = String>) -> ExitCode {
    let words: Vec<String> = words.collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let answer = runtime.block_on(async {
        let client = Client::from_path(SOCKET).await.expect("reach containerd");
        call(&client, &words).await
    });
    match answer {
        Ok(said) => {
            if !said.is_empty() {
                println!("{said}");
            }
            ExitCode::SUCCESS
        }
        Err(status) => {
            eprintln!("rpc: {:?}: {}", status.code(), status.message());
            ExitCode::FAILURE
        }
    }
}

async fn call(client: &Client, words: &[&str]) -> Result<String, Status> {
    let [verb, id, more @ ..] = words else {
        panic!("rpc VERB ID");
    };
    let container_id = (*id).to_owned();
    let word = |at: usize| {
        more.get(at)
            .map_or(String::new(), |word| (*word).to_owned())
    };
    let number = |at: usize| word(at).parse::<u32>().expect("a number");
    let json = |type_url: &str, at: usize| {
        Some(Any {
            type_url: type_url.to_owned(),
            value: word(at).into_bytes(),
        })
    };
    let mut tasks = client.tasks();
    macro_rules! send {
        ($method:ident, $request:expr) => {
            tasks
                .$method(with_namespace!($request, "default"))
                .await?
                .into_inner()
        };
    }
    let exec_id = word(0);
    let done = String::new();
    Ok(match *verb {
        "create" => {
            create(client, container_id).await?;
            done
        }
        "start" => {
            send!(
                start,
                StartRequest {
                    container_id,
                    exec_id
                }
            );
            done
        }
        "exec" => {
            let spec = json(PROCESS, 1);
            send!(
                exec,
                ExecProcessRequest {
                    container_id,
                    exec_id,
                    spec,
                    ..Default::default()
                }
            );
            done
        }
        "state" => {
            let process = send!(
                get,
                GetRequest {
                    container_id,
                    exec_id
                }
            )
            .process
            .unwrap_or_default();
            let status = TaskStatus::try_from(process.status).unwrap_or_default();
            format!("{} {}", status.as_str_name(), process.exit_status)
        }
        "wait" => send!(
            wait,
            WaitRequest {
                container_id,
                exec_id
            }
        )
        .exit_status
        .to_string(),
        "kill" => {
            let (signal, exec_id) = (number(0), word(1));
            send!(
                kill,
                KillRequest {
                    container_id,
                    signal,
                    exec_id,
                    all: false
                }
            );
            done
        }
        "delete" if exec_id.is_empty() => send!(delete, DeleteTaskRequest { container_id })
            .exit_status
            .to_string(),
        "delete" => send!(
            delete_process,
            DeleteProcessRequest {
                container_id,
                exec_id
            }
        )
        .exit_status
        .to_string(),
        "close-stdin" => {
            send!(
                close_io,
                CloseIoRequest {
                    container_id,
                    exec_id,
                    stdin: true
                }
            );
            done
        }
        "resize" => {
            let (width, height) = (number(0), number(1));
            send!(
                resize_pty,
                ResizePtyRequest {
                    container_id,
                    exec_id: String::new(),
                    width,
                    height
                }
            );
            done
        }
        "update" => {
            let resources = json(RESOURCES, 0);
            send!(
                update,
                UpdateTaskRequest {
                    container_id,
                    resources,
                    ..Default::default()
                }
            );
            done
        }
        "pids" => send!(list_pids, ListPidsRequest { container_id })
            .processes
            .len()
            .to_string(),
        other => panic!("there is no rpc {other}"),
    })
}

async fn create(client: &Client, container_id: String) -> Result<(), Status> {
    let request = GetContainerRequest {
        id: container_id.clone(),
    };
    let container = client
        .containers()
        .get(with_namespace!(request, "default"))
        .await?;
    let container = container.into_inner().container.unwrap_or_default();
    let request = MountsRequest {
        snapshotter: container.snapshotter,
        key: container.snapshot_key,
    };
    let mounts = client
        .snapshots()
        .mounts(with_namespace!(request, "default"))
        .await?;
    let rootfs = mounts.into_inner().mounts;
    let request = CreateTaskRequest {
        container_id,
        rootfs,
        ..Default::default()
    };
    client
        .tasks()
        .create(with_namespace!(request, "default"))
        .await?;
    Ok(())
}
