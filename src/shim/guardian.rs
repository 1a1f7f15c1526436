//! Watches over a container whose memory comes from a page server.
//!
//! The shim holds the container's [`Line`]: as long as it does, memory that is
//! still missing cannot turn into zeros. When the server says that it is all
//! there, the line is dropped; when the server fails or is gone, the container
//! is killed first, and the line dropped when none of its processes is left.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::container::Container;
use super::control::blocking;
use super::tasks::Tasks;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::lazy::custody::Taking;
use crate::lazy::line::{self, Line, News};

/// How often it is looked whether a killed container's processes are gone.
const LOOK: Duration = Duration::from_millis(20);

/// Where a container's memory comes from.
#[derive(Debug, Clone)]
pub struct Source {
    /// The page server's socket.
    pub server: PathBuf,
    /// The container's name there.
    pub sibling: String,
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
        let (server, sibling) = (self.server.clone(), self.sibling.clone());
        let asked = blocking(move || line::detach(&server, &sibling)).await;
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
    let from =
        AsyncFd::with_interest(from, Interest::READABLE).context(|| "watch the helper's socket")?;
    let mut taking = Taking::default();
    loop {
        let mut ready = from
            .readable()
            .await
            .context(|| "watch the helper's socket")?;
        if !taking.take(from.as_fd())? {
            return Ok(taking.finish());
        }
        ready.clear_ready();
    }
}

/// A line that can be waited for.
struct Watched(Line);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Begins to guard a container.
pub fn watch(
    tasks: &Tasks,
    container: &Arc<Container>,
    line: Line,
    server: &Path,
    sibling: &str,
) -> Result<Source> {
    let (tell, independent) = watch::channel(false);
    let mut line = AsyncFd::with_interest(Watched(line), Interest::READABLE)
        .context(|| "watch the page server's line")?;
    let (tasks, guarded) = (tasks.clone(), container.clone());
    tokio::spawn(async move {
        let failure = tokio::select! {
            news = news(&mut line) => match news {
                News::Independent => {
                    let _ = tell.send(true);
                    return;
                }
                News::Failed(reason) => Some(reason),
                News::Closed => Some("its page server is gone".to_owned()),
            },
            _ = guarded.init.wait() => None,
        };
        if let Some(reason) = failure {
            end(&tasks, &guarded, &reason).await;
        }
        until_nobody_is_left(&guarded).await;
        drop(line);
    });
    Ok(Source {
        server: server.to_owned(),
        sibling: sibling.to_owned(),
        independent,
    })
}

async fn news(line: &mut AsyncFd<Watched>) -> News {
    loop {
        let mut ready = match line.readable_mut().await {
            Ok(ready) => ready,
            Err(error) => return News::Failed(error.to_string()),
        };
        match ready.get_inner_mut().0.try_recv() {
            Ok(Some(news)) => return news,
            Ok(None) => ready.clear_ready(),
            Err(error) => return News::Failed(error.to_string()),
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
