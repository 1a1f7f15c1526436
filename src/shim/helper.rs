//! The short-lived process that does the heavy work of one request.
//!
//! The shim re-executes its own binary as `containerd-shim-world-v1 helper`.
//! On file descriptor 3 the helper finds a socket: it reads one JSON
//! [`Request`] to the end of the stream, does it, writes one JSON reply and
//! ends. A reply that is missing or cut short means that the helper died.
//!
//! Its stdin, stdout and stderr are those of the process to be made, so it
//! never writes to them.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::console;
use super::reaper::{Exit, ExitReceiver, Reaper};
use crate::containerd::Containerd;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::lazy::custody;
use crate::runtime;
use crate::world::identity::Identity;
use crate::world::lazily::LazyMemory;
use crate::world::{checkpoint, restore};

/// First argument of the shim's binary when it is to be a helper.
pub const ARGUMENT: &str = "helper";
const SOCKET_FD: i32 = 3;
/// Where a restore hands over what keeps lazy memory whole.
const CUSTODY_FD: i32 = 4;
/// More than any reply needs.
const MAX_REPLY_BYTES: usize = 16 << 20;

/// What a helper is asked to do.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Mount the rootfs, make the container.
    Create {
        /// What to mount at the rootfs.
        rootfs: Vec<runtime::RootfsMountRequest>,
        /// The container.
        create: runtime::Create,
    },
    /// Mount the rootfs of a container that comes from a world, and look the world over.
    Prepare(restore::Request),
    /// Let init run its program.
    Start(runtime::Target),
    /// Bring a prepared container back from its world.
    Restore(restore::Request),
    /// Run a further process.
    Exec(runtime::Exec),
    /// Freeze the container into a world directory.
    Checkpoint(checkpoint::Request),
    /// Remove cgroups, state and mounts.
    Delete {
        /// Which container.
        target: runtime::Target,
        /// Kill what still runs.
        force: bool,
    },
    /// Change resource limits.
    Update {
        /// Which container.
        target: runtime::Target,
        /// OCI `linux.resources` as JSON.
        resources: Box<oci_spec::runtime::LinuxResources>,
    },
}

/// What a helper answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// It is done, and this is the new process.
    Process(i32),
    /// A container was brought back.
    Restored(Restored),
    /// The world is written.
    Checkpointed(checkpoint::Outcome),
    /// It failed.
    Failed {
        /// Kind of the failure.
        kind: ErrorKind,
        /// What to tell.
        message: String,
    },
}

/// A container that was brought back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Restored {
    /// Its init.
    pub pid: i32,
    /// It stands still until it is resumed.
    pub paused: bool,
    /// When it is to be ended, in seconds since 1970.
    pub expires: Option<i64>,
    /// Where its memory comes from; its line came by [`Streams::custody`].
    pub memory: Option<LazyMemory>,
}

/// Standard streams for the helper, and so for the process that it makes.
/// What is missing is `/dev/null`.
#[derive(Default)]
pub struct Streams {
    /// stdin
    pub stdin: Option<OwnedFd>,
    /// stdout
    pub stdout: Option<OwnedFd>,
    /// stderr
    pub stderr: Option<OwnedFd>,
    /// Where the line to a page server is handed over; see [`super::guardian`].
    pub custody: Option<OwnedFd>,
}

/// A helper at work.
pub struct Helper {
    /// Its process id.
    pub pid: i32,
    socket: UnixStream,
    exit: ExitReceiver,
}

impl Helper {
    /// Starts a helper and gives it `request`.
    pub async fn start(reaper: &Reaper, request: &Request, streams: Streams) -> Result<Helper> {
        let (ours, theirs) = StdUnixStream::pair().context(|| "make the helper's socket")?;
        ours.set_nonblocking(true)
            .context(|| "prepare the helper's socket")?;
        let custody = streams.custody.map(|parent_fd| FdMapping {
            parent_fd,
            child_fd: CUSTODY_FD,
        });
        let socket = FdMapping {
            parent_fd: theirs.into(),
            child_fd: SOCKET_FD,
        };
        let mappings = std::iter::once(socket).chain(custody).collect();
        let mut command = Command::new("/proc/self/exe");
        command
            .arg(ARGUMENT)
            // The shim's own folder is its first container's bundle, which goes with that.
            .current_dir("/")
            // Meant for whoever systemd started; libcontainer would pass it on.
            .env_remove("LISTEN_FDS")
            .stdin(stdio(streams.stdin))
            .stdout(stdio(streams.stdout))
            .stderr(stdio(streams.stderr))
            .fd_mappings(mappings)
            .map_err(|error| {
                Error::caused_by(ErrorKind::Internal, "hand the helper its socket", error)
            })?;
        let (pid, exit) = reaper.spawn(&mut command)?;
        // Closes our copies of the streams and of the helper's end of the socket.
        drop(command);
        let mut socket = UnixStream::from_std(ours).context(|| "watch the helper's socket")?;
        let body = serde_json::to_vec(request).map_err(|error| {
            Error::caused_by(ErrorKind::Internal, "encode the helper's request", error)
        })?;
        // Fails when the helper is dead already, which `finish` finds and tells.
        if socket.write_all(&body).await.is_ok() {
            let _ = socket.shutdown().await;
        }
        Ok(Helper { pid, socket, exit })
    }

    /// Waits for the answer and for the helper's end.
    ///
    /// The end of the stream means nothing: a container's init has a copy of
    /// the socket until it executes its program. The helper's end is the end.
    pub async fn finish(mut self) -> Result<Reply> {
        let mut reply = Vec::new();
        let mut open = true;
        let exit = loop {
            tokio::select! {
                exit = &mut self.exit => break exit.ok(),
                ready = self.socket.readable(), if open => ready.context(|| "hear from the helper")?,
            }
            open = read_available(&self.socket, &mut reply)?;
        };
        read_rest(&self.socket, &mut reply)?;
        match serde_json::from_slice(&reply) {
            Ok(Reply::Failed { kind, message }) => Err(Error::new(kind, message)),
            Ok(reply) => Ok(reply),
            Err(_) => Err(Error::new(ErrorKind::Aborted, died(exit))),
        }
    }
}

/// Reads what has arrived, without waiting. False at the end of the stream.
fn read_available(socket: &UnixStream, into: &mut Vec<u8>) -> Result<bool> {
    let mut chunk = [0; 16 << 10];
    loop {
        match socket.try_read(&mut chunk) {
            Ok(0) => return Ok(false),
            Ok(n) if into.len() + n <= MAX_REPLY_BYTES => into.extend_from_slice(&chunk[..n]),
            Ok(_) => return Err(Error::new(ErrorKind::Internal, "the helper says too much")),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(true),
            // Killed before it had read its request: that is its end, too.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(false),
            Err(error) => return Err(error).context(|| "hear from the helper"),
        }
    }
}

/// Reads what is left when the helper has ended. tokio cannot be asked: it may not have been
/// told yet that there is something, when the end is known already.
fn read_rest(socket: &UnixStream, into: &mut Vec<u8>) -> Result<()> {
    let mut chunk = [0; 16 << 10];
    loop {
        match rustix::net::recv(socket, &mut chunk, RecvFlags::DONTWAIT) {
            Ok((_, 0)) | Err(Errno::AGAIN | Errno::CONNRESET) => return Ok(()),
            Ok((_, n)) if into.len() + n <= MAX_REPLY_BYTES => into.extend_from_slice(&chunk[..n]),
            Ok(_) => return Err(Error::new(ErrorKind::Internal, "the helper says too much")),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).context(|| "hear from the helper"),
        }
    }
}

/// Runs one request in a helper, from start to end.
pub async fn run(reaper: &Reaper, request: &Request, streams: Streams) -> Result<Reply> {
    Helper::start(reaper, request, streams)
        .await?
        .finish()
        .await
}

fn died(exit: Option<Exit>) -> String {
    match exit.map(|exit| exit.status) {
        Some(status) if status > 128 => {
            format!("the helper process was killed by signal {}", status - 128)
        }
        Some(status) => {
            format!("the helper process ended with status {status} and without an answer")
        }
        None => "the helper process is gone".to_owned(),
    }
}

fn stdio(stream: Option<OwnedFd>) -> Stdio {
    stream.map_or_else(Stdio::null, Stdio::from)
}

/// The helper's whole life. Returns its exit status.
pub fn main() -> u8 {
    let Ok(mut socket) = crate::sys::take_inherited_socket(SOCKET_FD) else {
        return 2;
    };
    runtime::listen_to_libcontainer();
    let reply = serve(&mut socket).unwrap_or_else(|error| Reply::Failed {
        kind: error.kind(),
        message: error.to_string(),
    });
    let sent = serde_json::to_vec(&reply)
        .map_err(std::io::Error::from)
        .and_then(|body| socket.write_all(&body));
    u8::from(sent.is_err())
}

fn serve(socket: &mut StdUnixStream) -> Result<Reply> {
    // Should the shim be killed, its helper must not go on by itself.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .context(|| "tie the helper to the shim")?;
    let mut body = Vec::new();
    socket
        .read_to_end(&mut body)
        .context(|| "read the request")?;
    let request = serde_json::from_slice(&body)
        .map_err(|error| Error::caused_by(ErrorKind::Internal, "decode the request", error))?;
    perform(request, socket.as_fd())
}

fn perform(request: Request, _socket: std::os::fd::BorrowedFd<'_>) -> Result<Reply> {
    match request {
        Request::Create { rootfs, create } => {
            let root = create.target.rootfs();
            runtime::mount_rootfs(&rootfs, &root)?;
            runtime::create(&create)
                .inspect_err(|_| {
                    let _ = runtime::unmount_rootfs(&root);
                })
                .map(Reply::Process)
        }
        Request::Prepare(restore) => {
            let id = restore.target.id.clone();
            restore::prepare(&restore, || {
                identity(&restore.containerd, &restore.namespace, &id)
            })?;
            Ok(Reply::Done)
        }
        Request::Start(target) => runtime::start(&target).map(|()| Reply::Done),
        Request::Restore(request) => bring_back(&request).map(Reply::Restored),
        Request::Exec(exec) => runtime::exec(&exec).map(Reply::Process),
        Request::Checkpoint(request) => checkpoint::checkpoint(&request, || {
            identity(&request.containerd, &request.namespace, &request.target.id)
        })
        .map(Reply::Checkpointed),
        Request::Delete { target, force } => {
            runtime::delete(&target, force)?;
            runtime::disown_cgroup(&target)?;
            runtime::unmount_rootfs(&target.rootfs())?;
            Ok(Reply::Done)
        }
        Request::Update { target, resources } => {
            target.cgroup()?.update(&resources)?;
            Ok(Reply::Done)
        }
    }
}

/// Asks containerd who a container is. It is busy with this very call, maybe
/// on a slow machine: it may take its time.
fn identity(socket: &Path, namespace: &str, id: &str) -> Result<Identity> {
    let containerd = Containerd::connect(socket, Duration::from_secs(30))?;
    containerd.namespace(namespace)?.identity(id)
}

fn bring_back(request: &restore::Request) -> Result<Restored> {
    let custody = crate::sys::take_inherited_socket(CUSTODY_FD)
        .context(|| "take the socket for a line of the page server")?;
    let mut restored = restore::restore(request)?;
    let memory = restored.memory.take().map(|(memory, line)| {
        custody::give(line, custody.as_fd(), &memory.sibling)?;
        Ok::<_, Error>(memory)
    });
    let sibling = restored.sibling.as_ref();
    let reply = Restored {
        pid: restored.pid,
        paused: sibling.is_some_and(|sibling| sibling.paused),
        expires: sibling.and_then(|sibling| Some(sibling.expires?.unix_timestamp())),
        memory: memory.transpose()?,
    };
    let (Some(master), Some(socket)) = (&restored.pty_master, &request.console_socket) else {
        return Ok(reply);
    };
    console::send(socket, master)
        .inspect_err(|_| {
            if let Some(pid) = rustix::process::Pid::from_raw(restored.pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        })
        .map(|()| reply)
}
