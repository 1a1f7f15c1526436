//! Watches over a container whose memory comes from a page server.
//!
//! The shim holds the container's [`Line`]: as long as it does, memory that is
//! still missing cannot turn into zeros. When the server says that it is all
//! there, the line is dropped; when the server fails or is gone, the container
//! is killed first, and the line dropped when none of its processes is left.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::container::Container;
use super::control::blocking;
use super::tasks::Tasks;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::lazy::custody::Taking;
use crate::lazy::line::{self, Line, News};
use crate::world::lazily::LazyMemory;

/// How often it is looked whether a killed container's processes are gone.
const LOOK: Duration = Duration::from_millis(20);

/// Where a container's memory comes from.
#[derive(Debug, Clone)]
pub struct Source {
    memory: LazyMemory,
    /// Becomes true when the container needs the server no more.
    independent: watch::Receiver<bool>,
}

impl Source {
    /// Has the rest of the memory fetched, and waits for it. Nothing that it awaits ends by
    /// itself but with the container or the server, whose end ends the container.
    pub async fn fetch_all(&self) -> Result<()> {
        let mut independent = self.independent.clone();
        if *independent.borrow() {
            return Ok(());
        }
        let memory = self.memory.clone();
        let asked = blocking(move || line::detach(&memory.server, &memory.sibling)).await;
        match asked {
            // It lacks nothing by now: that news is on its way.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            asked => asked?,
        }
        match independent.wait_for(|is| *is).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new(
                ErrorKind::Aborted,
                "the container's memory did not become its own: its page server is gone",
            )),
        }
    }
}

/// The socket over which the helper hands the line over: ours, and the helper's end.
pub fn custody() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .context(|| "make a socket for the helper")
}

/// Takes a line from a helper at work: to be begun before the helper is, and awaited after it.
pub async fn take(from: OwnedFd) -> Result<Option<Line>> {
    let mut taking = Taking::default();
    let watched = readable(from.as_fd())?;
    loop {
        let ready = watched.readable().await;
        let mut ready = ready.context(|| "watch the helper's socket")?;
        if !taking.take(from.as_fd())? {
            return Ok(taking.finish());
        }
        ready.clear_ready();
    }
}

fn readable(fd: BorrowedFd<'_>) -> Result<AsyncFd<BorrowedFd<'_>>> {
    crate::sys::async_readable(fd).context(|| "watch a socket")
}

/// Begins to guard a container whose memory comes lazily, by the line that its helper handed over.
pub fn guard(
    tasks: &Tasks,
    container: &Arc<Container>,
    line: Option<Line>,
    memory: &LazyMemory,
) -> Result<()> {
    let mut line = line.ok_or_else(|| {
        let text = "the helper did not hand over the line to the page server";
        Error::new(ErrorKind::Internal, text)
    })?;
    let (tell, independent) = watch::channel(false);
    container.set_memory(Source {
        memory: memory.clone(),
        independent,
    });
    let (tasks, guarded) = (tasks.clone(), container.clone());
    tokio::spawn(async move {
        let failure = tokio::select! {
            news = news(&mut line) => match news {
                Ok(News::Independent) => {
                    let _ = tell.send(true);
                    return;
                }
                Ok(News::Failed(reason)) => Some(reason),
                Ok(News::Closed) => Some("its page server is gone".to_owned()),
                Err(error) => Some(error.to_string()),
            },
            _ = guarded.init.wait() => None,
        };
        if let Some(reason) = failure {
            end(&tasks, &guarded, &reason).await;
        }
        until_nobody_is_left(&guarded).await;
        drop(line);
    });
    Ok(())
}

async fn news(line: &mut Line) -> Result<News> {
    // A second descriptor: the line itself is changed meanwhile.
    let socket = line.as_fd().try_clone_to_owned();
    let socket = socket.context(|| "duplicate a descriptor")?;
    let watched = readable(socket.as_fd())?;
    loop {
        let ready = watched.readable().await;
        let mut ready = ready.context(|| "watch the page server's line")?;
        match line.try_recv()? {
            Some(news) => return Ok(news),
            None => ready.clear_ready(),
        }
    }
}

/// Its memory cannot be had: a program that went on would hang, or read zeros.
async fn end(tasks: &Tasks, container: &Arc<Container>, reason: &str) {
    let id = &container.target.id;
    log::error!("{id} is killed, its memory cannot be had: {reason}");
    let same = |now: Arc<Container>| Arc::ptr_eq(&now, container);
    if !tasks.container(id).is_ok_and(same) {
        return;
    }
    let killed = tasks.kill(id, "", Signal::KILL.as_raw() as u32, true).await;
    if let Err(error) = killed {
        log::error!("kill {id}: {error}");
    }
}

async fn until_nobody_is_left(container: &Arc<Container>) {
    container.init.wait().await;
    while let Ok(cgroup) = container.cgroup() {
        let left = blocking(move || Ok(cgroup.exists() && !cgroup.pids()?.is_empty())).await;
        if !left.unwrap_or(false) {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}
