//! Create, Start, Exec, Delete, and what happens when a process ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use containerd_shim::asynchronous::io::Stdio;
use containerd_shim::protos::api::CreateTaskRequest;
use containerd_shim::protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskIO, TaskPaused, TaskStart,
};

use oci_spec::runtime::Spec;

use super::console::ConsoleSocket;
use super::container::Container;
use super::events::timestamp;
use super::helper::{self, Reply, Request, Streams};
use super::ports::Ports;
use super::process::{Phase, Process};
use super::reaper::{Exit, ExitReceiver};
use super::stdio::{self, PipeOwner, Prepared};
use super::tasks::Tasks;
use super::{guardian, oom, options};
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::runtime::{self, RootfsMountRequest, STATE_DIR, Target};
use crate::world::config::Config;
use crate::world::policy::{PREFIX, Policy};
use crate::world::publish::PublishedPort;
use crate::world::restore;

/// How long init's exit event waits for those of its execs.
const EXECS_END: Duration = Duration::from_secs(10);

impl Tasks {
    /// Makes a container; with a checkpoint, only looks the world over: CRIU
    /// runs in Start, when containerd has finished with the rootfs.
    pub async fn create(&self, request: CreateTaskRequest) -> Result<u32> {
        let options = options::create_options(request.options.as_ref())?;
        if options.systemd_cgroup {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "SystemdCgroup is not supported: set it to false for this runtime",
            ));
        }
        let target = Target {
            id: request.id.clone(),
            bundle: PathBuf::from(&request.bundle),
        };
        let spec = target.spec()?;
        let ports = Ports::listen(&published(&spec)?, &spec)?;
        let rootfs: Vec<_> = request.rootfs.iter().map(mount_request).collect();
        let stdio = Stdio::new(
            &request.stdin,
            &request.stdout,
            &request.stderr,
            request.terminal,
        );
        let world = Some(&request.checkpoint)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from);
        let container = self.add(Container::new(
            target,
            &spec,
            rootfs,
            world,
            Process::new("", stdio),
            PipeOwner {
                uid: options.io_uid,
                gid: options.io_gid,
            },
            ports,
        ))?;
        let made = match container.world {
            None => self.create_fresh(&container, options.no_pivot_root).await,
            Some(_) => self.prepare_restore(&container).await,
        };
        if let Err(error) = made {
            container.drop_world();
            container.init.close(false).await;
            self.remove(&request.id);
            return Err(error);
        }
        let pid = container.init.life().pid as u32;
        self.events.publish(TaskCreate {
            container_id: request.id,
            bundle: request.bundle,
            rootfs: request.rootfs,
            io: Some(TaskIO {
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
                terminal: request.terminal,
                ..Default::default()
            })
            .into(),
            checkpoint: request.checkpoint,
            pid,
            ..Default::default()
        });
        Ok(pid)
    }

    async fn create_fresh(&self, container: &Arc<Container>, no_pivot: bool) -> Result<()> {
        let Prepared { streams, console } =
            self.prepare_streams(container, &container.init).await?;
        let request = Request::Create {
            rootfs: container.rootfs.clone(),
            create: runtime::Create {
                target: container.target.clone(),
                console_socket: console.as_ref().map(ConsoleSocket::path),
                no_pivot,
            },
        };
        let made = helper::run(&self.reaper, &request, streams).await;
        let pid = match made {
            Ok(reply) => process_id(reply)?,
            Err(error) => {
                self.clean_up(&container.target).await;
                return Err(error);
            }
        };
        container.init.set_pid(pid);
        self.watch_init(container, self.reaper.claim(pid));
        if let Some(console) = console
            && let Err(error) = stdio::attach_terminal(&container.init, console).await
        {
            self.clean_up(&container.target).await;
            return Err(error);
        }
        Ok(())
    }

    async fn prepare_restore(&self, container: &Arc<Container>) -> Result<()> {
        let request = Request::Prepare(self.restore_request(container, None)?);
        let prepared = helper::run(&self.reaper, &request, Streams::default()).await;
        if prepared.is_err() {
            self.clean_up(&container.target).await;
        }
        prepared.map(|_| ())
    }

    /// Starts init or an exec.
    pub async fn start(&self, id: &str, exec_id: &str) -> Result<u32> {
        let container = self.container(id)?;
        let process = container.process(exec_id)?;
        process.begin_start()?;
        let started = match (exec_id.is_empty(), &container.world) {
            (false, _) => self.start_exec(&container, &process).await,
            (true, None) => self.start_init(&container).await,
            (true, Some(_)) => self.start_restored(&container).await,
        };
        if let Err(error) = started {
            if exec_id.is_empty() && container.world.is_some() {
                // The helper does this itself, unless it was killed.
                self.clean_up(&container.target).await;
                container.drop_world();
            }
            self.start_failed(&container, &process);
            return Err(error);
        }
        let pid = process.life().pid as u32;
        if exec_id.is_empty() {
            self.events.publish(TaskStart {
                container_id: id.to_owned(),
                pid,
                ..Default::default()
            });
        } else {
            self.events.publish(TaskExecStarted {
                container_id: id.to_owned(),
                exec_id: exec_id.to_owned(),
                pid,
                ..Default::default()
            });
        }
        if exec_id.is_empty() && container.is_paused() {
            self.events.publish(TaskPaused {
                container_id: id.to_owned(),
                ..Default::default()
            });
        }
        // Only now may the exit event follow.
        process.started();
        if exec_id.is_empty() {
            super::idle::rest_soon();
        }
        Ok(pid)
    }

    async fn start_init(&self, container: &Arc<Container>) -> Result<()> {
        let request = Request::Start(container.target.clone());
        helper::run(&self.reaper, &request, Streams::default()).await?;
        container.serve_ports()?;
        oom::watch(self, container);
        Ok(())
    }

    async fn start_restored(&self, container: &Arc<Container>) -> Result<()> {
        let Prepared { streams, console } =
            self.prepare_streams(container, &container.init).await?;
        let console_path = console.as_ref().map(ConsoleSocket::path);
        let request = Request::Restore(self.restore_request(container, console_path)?);
        let (custody, theirs) = guardian::custody()?;
        let streams = Streams {
            custody: Some(theirs),
            ..streams
        };
        let taking = tokio::spawn(guardian::take(custody));
        let reply = helper::run(&self.reaper, &request, streams).await?;
        let line = taking.await.unwrap_or(Ok(None))?;
        let restored = match reply {
            Reply::Restored(restored) => restored,
            other => return Err(unexpected(&other)),
        };
        container.init.set_pid(restored.pid);
        self.watch_init(container, self.reaper.claim(restored.pid));
        if let Some(console) = console {
            stdio::attach_terminal(&container.init, console).await?;
        }
        container.serve_ports()?;
        if let Some(memory) = &restored.memory {
            guardian::guard(self, container, line, memory)?;
        }
        container.drop_world();
        oom::watch(self, container);
        if restored.paused {
            container.begin_paused();
        }
        if let Some(expires) = restored.expires {
            self.end_at(container, expires);
        }
        Ok(())
    }

    async fn start_exec(&self, container: &Arc<Container>, process: &Arc<Process>) -> Result<()> {
        container.must_take_execs()?;
        let Prepared { streams, console } = self.prepare_streams(container, process).await?;
        let request = Request::Exec(runtime::Exec {
            target: container.target.clone(),
            init: container.init.life().pid,
            process: process_file(container, &process.exec_id),
            console_socket: console.as_ref().map(ConsoleSocket::path),
        });
        let pid = process_id(helper::run(&self.reaper, &request, streams).await?)?;
        process.set_pid(pid);
        self.watch_exec(container, process, self.reaper.claim(pid));
        if let Some(console) = console {
            stdio::attach_terminal(process, console).await?;
        }
        Ok(())
    }

    /// A start that failed leaves a stopped process that can be deleted. A
    /// restore that failed is told as an exit: containerd waits for one.
    fn start_failed(&self, container: &Arc<Container>, process: &Arc<Process>) {
        let never_lived = process.pid().is_none();
        if process.exec_id.is_empty() {
            container.close_ports();
        }
        if let Some(pid) = process.pid().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let exit = Exit {
            status: 255,
            at: SystemTime::now(),
        };
        process.failed(exit);
        if never_lived && process.exec_id.is_empty() {
            self.report_exit(container, process, exit);
        }
    }

    /// Registers an exec; Start runs it.
    pub async fn exec(&self, id: &str, exec_id: &str, stdio: Stdio, spec: &[u8]) -> Result<()> {
        let container = self.container(id)?;
        if exec_id.is_empty() || exec_id.contains('/') {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("{exec_id:?} is no exec id"),
            ));
        }
        container.must_take_execs()?;
        let process = container.add_exec(Process::new(exec_id, stdio))?;
        let file = process_file(&container, exec_id);
        let written = file
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::write(&file, spec))
            .context(|| format!("write {}", file.display()));
        if let Err(error) = written {
            container.remove_exec(&process.exec_id);
            return Err(error);
        }
        self.events.publish(TaskExecAdded {
            container_id: id.to_owned(),
            exec_id: exec_id.to_owned(),
            ..Default::default()
        });
        Ok(())
    }

    /// Removes a process that has ended, with everything that belonged to it.
    pub async fn delete(&self, id: &str, exec_id: &str) -> Result<(u32, Exit)> {
        let container = self.container(id)?;
        let process = container.process(exec_id)?;
        let life = process.life();
        if life.phase == Phase::Starting || life.phase == Phase::Running {
            let what = format!("cannot be deleted: {} is still running", process.name());
            return Err(container.wrong_state(what));
        }
        if !exec_id.is_empty() {
            process.close(true).await;
            let _ = std::fs::remove_file(process_file(&container, exec_id));
            container.remove_exec(exec_id);
            return Ok((life.pid as u32, exit_of(&process)));
        }
        let request = Request::Delete {
            target: container.target.clone(),
            force: true,
        };
        helper::run(&self.reaper, &request, Streams::default()).await?;
        process.close(true).await;
        let exit = exit_of(&process);
        container.drop_world();
        self.remove(id);
        self.events.publish(TaskDelete {
            container_id: id.to_owned(),
            pid: life.pid as u32,
            exit_status: exit.status,
            exited_at: Some(timestamp(exit.at)).into(),
            ..Default::default()
        });
        Ok((life.pid as u32, exit))
    }

    fn watch_init(&self, container: &Arc<Container>, exit: ExitReceiver) {
        let (tasks, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            let Ok(exit) = exit.await else { return };
            // Whoever shares init's process namespace would live on without it.
            if container.shares_processes
                && let Ok(cgroup) = container.cgroup()
            {
                let killed = tokio::task::spawn_blocking(move || cgroup.kill_all()).await;
                if let Ok(Err(error)) = killed {
                    log::warn!("kill what init left behind: {error}");
                }
            }
            container.close_ports();
            container.init.ended(exit);
            container
                .init
                .until(|life| life.phase == Phase::Stopped)
                .await;
            let all_reported = async {
                for exec in container.execs() {
                    exec.until(|life| life.pid == 0 || life.reported).await;
                }
            };
            let _ = tokio::time::timeout(EXECS_END, all_reported).await;
            tasks.report_exit(&container, &container.init, exit);
        });
    }

    fn watch_exec(&self, container: &Arc<Container>, process: &Arc<Process>, exit: ExitReceiver) {
        let (tasks, container, process) = (self.clone(), container.clone(), process.clone());
        tokio::spawn(async move {
            let Ok(exit) = exit.await else { return };
            process.ended(exit);
            process.until(|life| life.phase == Phase::Stopped).await;
            tasks.report_exit(&container, &process, exit);
        });
    }

    fn report_exit(&self, container: &Container, process: &Process, exit: Exit) {
        let id = match process.exec_id.as_str() {
            "" => container.target.id.clone(),
            exec => exec.to_owned(),
        };
        self.events.publish(TaskExit {
            container_id: container.target.id.clone(),
            id,
            pid: process.life().pid as u32,
            exit_status: exit.status,
            exited_at: Some(timestamp(exit.at)).into(),
            ..Default::default()
        });
        process.reported();
    }

    async fn prepare_streams(&self, container: &Container, process: &Process) -> Result<Prepared> {
        stdio::prepare(
            process,
            container.pipe_owner,
            &self.reaper,
            &self.namespace,
            &container.target,
        )
        .await
    }

    fn restore_request(
        &self,
        container: &Container,
        console_socket: Option<PathBuf>,
    ) -> Result<restore::Request> {
        let world = container
            .world
            .clone()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "a restore without a world"))?;
        Ok(restore::Request {
            target: container.target.clone(),
            world,
            rootfs: container.rootfs.clone(),
            console_socket,
            namespace: self.namespace.clone(),
            containerd: PathBuf::from(&self.containerd),
        })
    }

    /// After a failed Create or restore: whatever a helper, alive or killed, left behind.
    async fn clean_up(&self, target: &Target) {
        let request = Request::Delete {
            target: target.clone(),
            force: true,
        };
        if let Err(error) = helper::run(&self.reaper, &request, Streams::default()).await {
            log::warn!("clean up after a failed create: {error}");
        }
    }
}

/// The ports to publish. A misspelt annotation of ours shows now, not when a state is at stake.
fn published(spec: &Spec) -> Result<Vec<PublishedPort>> {
    let annotations = spec.annotations().clone().unwrap_or_default();
    if !annotations.keys().any(|name| name.starts_with(PREFIX)) {
        return Ok(Vec::new());
    }
    Ok(Policy::new(&annotations, &Config::default())?.publish)
}

fn exit_of(process: &Process) -> Exit {
    process.life().exit.unwrap_or(Exit {
        status: 0,
        at: SystemTime::now(),
    })
}

fn process_file(container: &Container, exec_id: &str) -> PathBuf {
    container
        .target
        .bundle
        .join(STATE_DIR)
        .join(format!("exec-{exec_id}.json"))
}

fn process_id(reply: Reply) -> Result<i32> {
    match reply {
        Reply::Process(pid) => Ok(pid),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(reply: &Reply) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("the helper answered {reply:?} instead of a process"),
    )
}

fn mount_request(mount: &containerd_shim::protos::api::Mount) -> RootfsMountRequest {
    RootfsMountRequest {
        kind: mount.type_.clone(),
        source: mount.source.clone(),
        options: mount.options.clone(),
        target: mount.target.clone(),
    }
}
