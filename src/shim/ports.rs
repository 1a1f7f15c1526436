//! Published ports: the host listens, and what comes is carried to the loopback
//! interface in the container's network namespace.
//!
//! The listeners are there before anything of the container is, so that a port that is
//! taken is an error of `Create`; they answer once init runs, and end with it. The shim owns
//! them: nothing of them outlives it.

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::task::{JoinHandle, JoinSet};

use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::world::publish::PublishedPort;

/// How long the container may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most connections at a time of one port; others wait.
const MOST: usize = 1024;
/// A moment, after accepting failed (no descriptors are left).
const PAUSE: Duration = Duration::from_millis(100);

/// The published ports of one container.
pub struct Ports {
    waiting: Vec<(PublishedPort, TcpListener)>,
    serving: Vec<JoinHandle<()>>,
}

impl Ports {
    /// Begins to listen. The container must have a network namespace that is not the host's.
    pub fn listen(ports: &[PublishedPort], spec: &Spec) -> Result<Ports> {
        let namespaces = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.namespaces().as_ref());
        let own = namespaces
            .into_iter()
            .flatten()
            .any(|namespace| namespace.typ() == LinuxNamespaceType::Network);
        if !ports.is_empty() && !own {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "a container in the host's network has no ports to publish",
            ));
        }
        let mut waiting = Vec::with_capacity(ports.len());
        for port in ports {
            waiting.push((*port, bind(port)?));
        }
        Ok(Ports {
            waiting,
            serving: Vec::new(),
        })
    }

    /// Answers, from now on, with what listens in the network namespace of `init`.
    pub fn serve(&mut self, init: i32) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let path = format!("/proc/{init}/ns/net");
        let namespace = File::open(&path).context(|| format!("open {path}"))?;
        let namespace = Arc::new(namespace);
        for (port, listener) in self.waiting.drain(..) {
            let listener = tokio::net::TcpListener::from_std(listener)
                .context(|| format!("publish port {port}"))?;
            let serving = serve(port, listener, Arc::clone(&namespace));
            self.serving.push(tokio::spawn(serving));
        }
        Ok(())
    }
}

fn bind(port: &PublishedPort) -> Result<TcpListener> {
    let what = format!("publish port {port}");
    let listener = match TcpListener::bind(port.host) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            return Err(Error::caused_by(ErrorKind::AlreadyExists, what, error));
        }
        listener => listener.context(|| what.clone())?,
    };
    listener.set_nonblocking(true).context(|| what)?;
    Ok(listener)
}

impl Drop for Ports {
    fn drop(&mut self) {
        // With it go the listener and all its connections.
        self.serving.iter().for_each(JoinHandle::abort);
    }
}

async fn serve(port: PublishedPort, listener: tokio::net::TcpListener, namespace: Arc<File>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= MOST {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((outside, _)) => {
                let namespace = Arc::clone(&namespace);
                connections.spawn(async move {
                    if let Err(error) = carry(outside, namespace, port.container).await {
                        log::debug!("port {port}: {error}");
                    }
                });
            }
            Err(error) => {
                log::warn!("port {port}: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn carry(
    mut outside: tokio::net::TcpStream,
    namespace: Arc<File>,
    port: u16,
) -> std::io::Result<()> {
    let (tell, told) = tokio::sync::oneshot::channel();
    // A thread changes its namespace once, and ends.
    std::thread::Builder::new()
        .name("connect".to_owned())
        .spawn(move || tell.send(connect(&namespace, port)))?;
    let inside = told.await.map_err(std::io::Error::other)??;
    let mut inside = tokio::net::TcpStream::from_std(inside)?;
    tokio::io::copy_bidirectional(&mut outside, &mut inside).await?;
    Ok(())
}

/// Connects to a port in another network namespace, into which this thread goes.
fn connect(namespace: &File, port: u16) -> std::io::Result<TcpStream> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    let four = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let six = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&four, PATIENCE)
        .or_else(|error| TcpStream::connect_timeout(&six, PATIENCE).map_err(|_| error))?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}
