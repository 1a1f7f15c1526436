//! A process's standard streams, as containerd names them.
//!
//! | containerd gives | the process gets |
//! |---|---|
//! | nothing | `/dev/null` |
//! | a path, or `fifo://PATH` | a pipe, copied from or to that FIFO |
//! | `file://PATH` | a pipe, copied to the end of that file |
//! | `binary://PROGRAM?K=V` | a pipe that PROGRAM reads as its fd 3 or 4 |
//! | `terminal` | a terminal, copied from stdin and to stdout |
//!
//! See containerd's `core/runtime/v2/README.md`, "I/O" and "Logging".

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use containerd_shim::asynchronous::io::{Pty, Stdio};
use rustix::fs::{Gid, Uid};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe;

use super::console::ConsoleSocket;
use super::helper::Streams;
use super::logger;
use super::process::Process;
use super::reaper::Reaper;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::runtime::Target;

/// Who is to own the pipes, for processes that reopen `/dev/stdout`.
#[derive(Debug, Clone, Copy, Default)]
pub struct PipeOwner {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Where one output stream goes.
#[derive(Debug, PartialEq, Eq)]
enum Output {
    Null,
    Fifo(PathBuf),
    File(PathBuf),
    Logger(String),
}

/// The ends of a process's streams that it gets itself.
pub struct Prepared {
    /// To be the helper's, and so the process's, own.
    pub streams: Streams,
    /// Where the terminal's master will arrive, with a terminal.
    pub console: Option<ConsoleSocket>,
}

/// Opens everything `process` needs and starts the copies. With a terminal the
/// copies start later, when its master is there: see [`attach_terminal`].
pub async fn prepare(
    process: &Process,
    owner: PipeOwner,
    reaper: &Reaper,
    namespace: &str,
    target: &Target,
) -> Result<Prepared> {
    if process.stdio.terminal {
        return Ok(Prepared {
            streams: Streams::default(),
            console: Some(ConsoleSocket::listen(&target.bundle)?),
        });
    }
    let mut streams = Streams::default();
    let stdio = &process.stdio;
    if !stdio.stdin.is_empty() {
        let (read, write) = owned_pipe(owner)?;
        let to = sender(write)?;
        process
            .io
            .copy_from_fifo(fifo_path(&stdio.stdin), to)
            .map_err(|error| stream_error(&stdio.stdin, error))?;
        streams.stdin = Some(read);
    }
    let out = parse_output(&stdio.stdout)?;
    let err = parse_output(&stdio.stderr)?;
    if let Output::Logger(uri) = &out {
        let ends = logger::start(uri, namespace, &target.id, reaper).await?;
        streams.stdout = Some(ends.stdout);
        streams.stderr = Some(ends.stderr);
        return Ok(Prepared {
            streams,
            console: None,
        });
    }
    streams.stdout = copy_output(process, owner, &out)?;
    streams.stderr = copy_output(process, owner, &err)?;
    Ok(Prepared {
        streams,
        console: None,
    })
}

/// Starts the copies of a process with a terminal.
pub async fn attach_terminal(process: &Process, console: ConsoleSocket) -> Result<()> {
    let master = console.receive().await?;
    let pty = Pty::new(master.into())
        .map_err(|error| Error::caused_by(ErrorKind::Io, "watch the terminal", error))?;
    let Stdio { stdin, stdout, .. } = &process.stdio;
    if !stdin.is_empty() {
        process
            .io
            .copy_from_fifo(fifo_path(stdin), pty.clone())
            .map_err(|error| stream_error(stdin, error))?;
    }
    match parse_output(stdout)? {
        Output::Null => {}
        Output::Fifo(path) => process
            .io
            .copy_to_fifo(pty.clone(), &path.to_string_lossy())
            .map_err(|error| stream_error(stdout, error))?,
        Output::File(_) | Output::Logger(_) => {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("a terminal cannot be logged to {stdout}: give a FIFO"),
            ));
        }
    }
    process.set_terminal(pty);
    Ok(())
}

/// Sets a terminal's size, in characters.
pub fn resize(pty: &Arc<Pty>, width: u32, height: u32) -> Result<()> {
    let size = rustix::termios::Winsize {
        ws_row: height as u16,
        ws_col: width as u16,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(pty.as_ref(), size).context(|| "resize the terminal")
}

fn copy_output(process: &Process, owner: PipeOwner, output: &Output) -> Result<Option<OwnedFd>> {
    if *output == Output::Null {
        return Ok(None);
    }
    let (read, write) = owned_pipe(owner)?;
    let read = pipe::Receiver::from_owned_fd(read).context(|| "watch a pipe")?;
    match output {
        Output::Null => {}
        Output::Fifo(path) => process
            .io
            .copy_to_fifo(read, &path.to_string_lossy())
            .map_err(|error| stream_error(&path.to_string_lossy(), error))?,
        // Not the file itself: a file of the host among the process's open
        // files could not be checkpointed.
        Output::File(path) => process.copy_to_log(read, open_log(path)?),
        Output::Logger(uri) => {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("a logging binary for stderr alone ({uri}) is not possible"),
            ));
        }
    }
    Ok(Some(write))
}

fn open_log(path: &std::path::Path) -> Result<std::fs::File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).context(|| format!("make {}", parent.display()))?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .open(path)
        .context(|| format!("open the log {}", path.display()))
}

fn parse_output(uri: &str) -> Result<Output> {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return Ok(match uri {
            "" => Output::Null,
            path => Output::Fifo(path.into()),
        });
    };
    let path = || rest.split('?').next().unwrap_or_default();
    match scheme {
        "fifo" => Ok(Output::Fifo(path().into())),
        "file" if path().starts_with('/') => Ok(Output::File(path().into())),
        "binary" | "binary-v2" => Ok(Output::Logger(uri.to_owned())),
        _ => Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{uri} is no place for a process's output: use fifo, file or binary"),
        )),
    }
}

fn fifo_path(uri: &str) -> &str {
    uri.strip_prefix("fifo://").unwrap_or(uri)
}

fn owned_pipe(owner: PipeOwner) -> Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).context(|| "make a pipe")?;
    if owner.uid != 0 || owner.gid != 0 {
        for end in [&read, &write] {
            rustix::fs::fchown(
                end,
                Some(Uid::from_raw(owner.uid)),
                Some(Gid::from_raw(owner.gid)),
            )
            .context(|| "give the pipe its owner")?;
        }
    }
    Ok((read, write))
}

fn sender(end: OwnedFd) -> Result<pipe::Sender> {
    pipe::Sender::from_owned_fd(end).context(|| "watch a pipe")
}

fn stream_error(path: &str, error: containerd_shim::Error) -> Error {
    Error::caused_by(ErrorKind::Io, format!("copy the stream {path}"), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_told_apart() {
        assert_eq!(parse_output("").unwrap(), Output::Null);
        assert_eq!(parse_output("/a/b").unwrap(), Output::Fifo("/a/b".into()));
        assert_eq!(
            parse_output("fifo:///a/b").unwrap(),
            Output::Fifo("/a/b".into())
        );
        assert_eq!(
            parse_output("file:///a?x=y").unwrap(),
            Output::File("/a".into())
        );
        assert!(matches!(
            parse_output("binary:///l?x").unwrap(),
            Output::Logger(_)
        ));
        assert!(parse_output("gopher:///a").is_err());
        assert!(parse_output("file://relative").is_err());
    }
}
