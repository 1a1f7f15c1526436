//! One `criu swrk` process and the socket to it.
//!
//! A [`Worker`] owns its process: whatever happens, dropping it leaves neither
//! a running `criu` nor a zombie.

use std::fs::File;
use std::io::{IoSliceMut, Read, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use prost::Message;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use rustix::time::Timespec;

use super::guard::{Guard, OnDeath};
use super::rpc;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::sys::ChildSetup;

/// The first number that a [`PassedFd`] may have. It is high because
/// descriptors that are open here while the child is made must keep theirs.
pub const FIRST_PASSED_FD: i32 = 401;
/// The socket's number in the `criu` process.
const SOCKET_FD: i32 = FIRST_PASSED_FD - 1;
/// A longer message than this is not CRIU's.
const MAX_MESSAGE: usize = 16 << 20;
/// How long CRIU may take to end after its last word.
const EXIT_TIME: Duration = Duration::from_secs(20);

/// A descriptor that `criu` gets under a number from [`FIRST_PASSED_FD`] on.
#[derive(Debug)]
pub struct PassedFd {
    /// What is passed.
    pub fd: OwnedFd,
    /// Its number in the `criu` process.
    pub number: i32,
}

/// How a `criu` process is started.
#[derive(Default)]
pub struct Launch {
    /// Descriptors that it gets.
    pub fds: Vec<PassedFd>,
    /// Open `cgroup.procs` files that it enters before it executes.
    pub cgroup_procs: Vec<OwnedFd>,
    /// Makes those cgroups the root of a cgroup namespace.
    pub new_cgroup_namespace: bool,
    /// The network namespace that it runs in. CRIU leaves the one that it
    /// runs in alone, as it would the host's.
    pub network: Option<OwnedFd>,
    /// Kill it when we die. Not for dumps: a `criu` that loses its client
    /// puts the processes right and gives up, a killed one cannot.
    pub dies_with_us: bool,
    /// Watches over its death, for what it holds then.
    pub on_death: Option<OnDeath>,
}

/// A message from CRIU and the descriptor that came with it.
#[derive(Debug)]
pub(super) struct Incoming {
    pub response: rpc::Response,
    pub fd: Option<OwnedFd>,
}

/// What [`Worker::receive`] waited for and got.
#[derive(Debug)]
pub(super) enum Received {
    Message(Incoming),
    /// CRIU has closed the socket or died.
    Gone,
    /// The caller's cancel descriptor became readable.
    Cancelled,
    TimedOut,
}

/// A running `criu swrk`.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    pidfd: OwnedFd,
    socket: OwnedFd,
    stderr: File,
    status: Option<ExitStatus>,
    guard: Option<Guard>,
}

impl Worker {
    /// Starts `criu` as a child of this process.
    pub fn start(program: &Path, launch: Launch) -> Result<Worker> {
        let (ours, theirs) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .context(|| "make a socket for CRIU")?;
        let stderr = stderr_file()?;
        let mut mappings = vec![FdMapping {
            parent_fd: theirs,
            child_fd: SOCKET_FD,
        }];
        mappings.extend(launch.fds.into_iter().map(|passed| FdMapping {
            parent_fd: passed.fd,
            child_fd: passed.number,
        }));
        let mut command = Command::new(program);
        command
            .args(["swrk", &SOCKET_FD.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr.try_clone().context(|| "duplicate a descriptor")?);
        // Before the mappings, whose numbers may be those of the cgroup files.
        let setup = ChildSetup {
            dies_with_parent: launch.dies_with_us,
            new_user_namespace: false,
            new_session: true,
            cgroup_procs: launch.cgroup_procs,
            new_cgroup_namespace: launch.new_cgroup_namespace,
            network: launch.network,
        };
        crate::sys::set_up_child(&mut command, setup);
        command
            .fd_mappings(mappings)
            .map_err(|_| Error::new(ErrorKind::Internal, "two descriptors of one number"))?;
        let child = command
            .spawn()
            .context(|| format!("start {}", program.display()))?;
        drop(command); // With it our copy of CRIU's end, so that its death is seen.
        let mut worker = Worker::watch(child, ours, stderr)?;
        if let Some(on_death) = launch.on_death {
            let pid = worker.pid().as_raw_pid();
            worker.guard = Some(Guard::start(pid, on_death)?);
        }
        Ok(worker)
    }

    /// Puts it before others, for memory and for the processor: it is not to
    /// be ended while it holds a container, nor to hold it longer than needed.
    /// Does what our privileges allow.
    pub fn put_first(&self) {
        let path = format!("/proc/{}/oom_score_adj", self.pid().as_raw_pid());
        let _ = std::fs::write(path, "-999");
        let _ = rustix::process::setpriority_process(Some(self.pid()), -15);
    }

    fn watch(mut child: Child, socket: OwnedFd, stderr: File) -> Result<Worker> {
        let pid = Pid::from_child(&child);
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Worker {
                child,
                pidfd,
                socket,
                stderr,
                status: None,
                guard: None,
            }),
            Err(errno) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(errno).context(|| "watch CRIU")
            }
        }
    }

    /// CRIU's process id, as this process sees it.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(super) fn send(&self, request: &rpc::Request) -> Result<()> {
        let bytes = request.encode_to_vec();
        rustix::io::retry_on_intr(|| rustix::net::send(&self.socket, &bytes, SendFlags::NOSIGNAL))
            .context(|| "send CRIU a request")
            .map(drop)
    }

    /// Waits for CRIU's next message, its end, `cancel` or `deadline`.
    pub(super) fn receive(
        &self,
        deadline: Option<Instant>,
        cancel: Option<BorrowedFd<'_>>,
    ) -> Result<Received> {
        let mut fds = vec![
            PollFd::new(&self.socket, PollFlags::IN),
            PollFd::new(&self.pidfd, PollFlags::IN),
        ];
        fds.extend(cancel.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        if !wait_for_any(&mut fds, deadline)? {
            return Ok(Received::TimedOut);
        }
        let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        if ready(0) {
            return Ok(match self.read_message()? {
                Some(message) => Received::Message(message),
                None => Received::Gone,
            });
        }
        if ready(2) {
            return Ok(Received::Cancelled);
        }
        Ok(Received::Gone)
    }

    fn read_message(&self) -> Result<Option<Incoming>> {
        let flags = RecvFlags::PEEK | RecvFlags::TRUNC;
        let peeked =
            rustix::io::retry_on_intr(|| rustix::net::recv(&self.socket, &mut [0u8; 0][..], flags));
        let length = match peeked {
            Ok((_, length)) => length,
            Err(rustix::io::Errno::CONNRESET) => 0,
            Err(errno) => return Err(errno).context(|| "hear from CRIU"),
        };
        if length == 0 {
            return Ok(None);
        }
        if length > MAX_MESSAGE {
            let text = format!("CRIU sent a message of {length} bytes");
            return Err(Error::new(ErrorKind::Criu, text));
        }
        let mut bytes = vec![0u8; length];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            rustix::net::recvmsg(&self.socket, &mut slices, &mut control, flags)
        })
        .context(|| "hear from CRIU")?;
        let fd = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            })
            .next();
        let response = rpc::Response::decode(&bytes[..received.bytes])
            .map_err(|error| Error::caused_by(ErrorKind::Criu, "CRIU's answer", error))?;
        Ok(Some(Incoming { response, fd }))
    }

    /// Lets CRIU end by itself, reaps it, and gives its status.
    pub(super) fn finish(&mut self) -> Result<ExitStatus> {
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        if !wait_for_any(&mut fds, Some(Instant::now() + EXIT_TIME))? {
            self.kill();
        }
        self.reap().context(|| "wait for CRIU")
    }

    /// Ends CRIU at once and reaps it. Harmless when it has ended.
    pub fn kill(&mut self) {
        if self.status.is_none() {
            let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
            let _ = self.reap();
        }
    }

    fn reap(&mut self) -> std::io::Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let status = match &mut self.guard {
            Some(guard) => guard.reap()?,
            None => self.child.wait()?,
        };
        self.status = Some(status);
        Ok(status)
    }

    /// What CRIU wrote to its standard error: only what precedes its log.
    pub(super) fn last_words(&mut self) -> String {
        let mut text = Vec::new();
        let _ = self.stderr.seek(SeekFrom::Start(0));
        let _ = (&self.stderr).take(64 << 10).read_to_end(&mut text);
        String::from_utf8_lossy(&text).trim().to_owned()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// "exit status 1", "killed by signal 9".
pub(super) fn describe(status: ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("killed by signal {signal}"),
        None => format!("exit status {}", status.code().unwrap_or(-1)),
    }
}

fn stderr_file() -> Result<File> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let fd = rustix::fs::memfd_create("criu-stderr", flags).context(|| "make a memory file")?;
    Ok(fd.into())
}

/// Whether one of `fds` became ready before `deadline`.
fn wait_for_any(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> Result<bool> {
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(fds, left.as_ref()) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno).context(|| "wait for CRIU"),
        }
    }
}
