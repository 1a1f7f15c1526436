//! The socket on which a terminal's master arrives: from libcontainer when a
//! process is made, from the helper when CRIU brings one back.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

use crate::error::{Error, ErrorKind, IoContext, Result};

const PATIENCE: Duration = Duration::from_secs(10);

/// A listening socket in a private folder, which goes away with this value.
pub struct ConsoleSocket {
    listener: UnixListener,
    dir: tempfile::TempDir,
}

impl ConsoleSocket {
    /// Opens the socket. It lies in the bundle, so that removing the bundle
    /// removes it even after a crash.
    pub fn listen(bundle: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("pty")
            .tempdir_in(bundle)
            .context(|| "make a folder for the console socket")?;
        // A bundle's path can be longer than a socket's address may be; the
        // path through /proc is short.
        let folder =
            std::fs::File::open(dir.path()).context(|| format!("open {}", dir.path().display()))?;
        let short = format!("/proc/self/fd/{}/s", folder.as_raw_fd());
        let listener = UnixListener::bind(&short).context(|| "open the console socket")?;
        Ok(ConsoleSocket { listener, dir })
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    /// Takes the terminal's master. The sender has connected already or never will.
    pub async fn receive(self) -> Result<OwnedFd> {
        let take = async {
            let (stream, _) = self.listener.accept().await?;
            receive_fd(&stream).await
        };
        let received = tokio::time::timeout(PATIENCE, take).await;
        received
            .map_err(|_| Error::new(ErrorKind::Timeout, "no terminal arrived within 10 s"))?
            .context(|| "receive the terminal")
    }
}

async fn receive_fd(stream: &UnixStream) -> std::io::Result<OwnedFd> {
    stream
        .async_io(Interest::READABLE, || {
            let mut name = [0u8; 4096];
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            recvmsg(
                stream,
                &mut [std::io::IoSliceMut::new(&mut name)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            )?;
            ancillary
                .drain()
                .find_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                    _ => None,
                })
                .ok_or_else(|| std::io::Error::other("no file descriptor came"))
        })
        .await
}

/// Sends a terminal's master to the console socket at `path`.
pub fn send(path: &Path, master: &OwnedFd) -> Result<()> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::os::fd::AsFd;
    let folder = std::fs::File::open(path.parent().unwrap_or(Path::new(".")))
        .context(|| format!("open the folder of {}", path.display()))?;
    let short = format!("/proc/self/fd/{}/s", folder.as_raw_fd());
    let socket = std::os::unix::net::UnixStream::connect(short)
        .context(|| format!("connect to {}", path.display()))?;
    let fds = [master.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(
        &socket,
        &[std::io::IoSlice::new(b"pty")],
        &mut ancillary,
        SendFlags::empty(),
    )
    .context(|| "send the terminal")?;
    Ok(())
}
