//! A logging program (`binary://PROGRAM?KEY=VALUE`), as containerd defines it:
//! it reads the process's stdout as fd 3 and stderr as fd 4, and closes fd 5
//! when it is ready. Keys and values become arguments.

use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::reaper::Reaper;
use crate::error::{Error, ErrorKind, IoContext, Result};

const PATIENCE: Duration = Duration::from_secs(10);

/// The writing ends, for the process.
pub struct LoggerEnds {
    /// Its stdout.
    pub stdout: OwnedFd,
    /// Its stderr.
    pub stderr: OwnedFd,
}

/// Starts the program named by `uri` and waits until it is ready. It ends by
/// itself, when the process has closed its output.
pub async fn start(
    uri: &str,
    namespace: &str,
    container: &str,
    reaper: &Reaper,
) -> Result<LoggerEnds> {
    let new_pipe = || pipe_with(PipeFlags::CLOEXEC).context(|| "make a pipe for the logger");
    let (out_read, stdout) = new_pipe()?;
    let (err_read, stderr) = new_pipe()?;
    let (ready_read, ready_write) = new_pipe()?;
    let mut command = command(uri)?;
    command
        .env("CONTAINER_ID", container)
        .env("CONTAINER_NAMESPACE", namespace)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .fd_mappings(
            [(out_read, 3), (err_read, 4), (ready_write, 5)]
                .into_iter()
                .map(|(parent_fd, child_fd)| FdMapping {
                    parent_fd,
                    child_fd,
                })
                .collect(),
        )
        .map_err(|error| Error::caused_by(ErrorKind::Internal, "set up the logger", error))?;
    let (pid, exit) = reaper.spawn(&mut command)?;
    drop(command);
    // Nobody needs its exit status.
    drop(exit);
    wait_ready(ready_read).await.inspect_err(|_| {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    })?;
    Ok(LoggerEnds { stdout, stderr })
}

/// The logger is ready when it closes fd 5, or writes to it.
async fn wait_ready(ready: OwnedFd) -> Result<()> {
    let mut ready =
        pipe::Receiver::from_owned_fd(ready).context(|| "watch the logger's ready pipe")?;
    tokio::time::timeout(PATIENCE, ready.read_u8())
        .await
        .map(|_| ())
        .map_err(|_| {
            Error::new(
                ErrorKind::Timeout,
                "the logging program was not ready within 10 s: it has to close fd 5",
            )
        })
}

fn command(uri: &str) -> Result<Command> {
    let bad = |why: &str| Error::new(ErrorKind::InvalidInput, format!("{uri}: {why}"));
    let (_, rest) = uri.split_once("://").ok_or_else(|| bad("no URI"))?;
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !path.starts_with('/') {
        return Err(bad("the logging program needs an absolute path"));
    }
    let mut command = Command::new(decode(path));
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        command.arg(decode(key)).arg(decode(value));
    }
    Ok(command)
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8_lossy()
        .into_owned()
}
