//! The page server of a world that is forked: there already, or started here.

use std::fs::{DirBuilder, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, flock};

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::lazy::{self, Line};
use crate::store::Store;
use crate::sys::ChildSetup;

/// What the server says when its socket is there.
const READY: &str = "ready";

/// Sees to it that the page server of a world runs. As long as the line that is returned is
/// open, it does not end for want of siblings. `fork`: the fork's id.
pub(super) fn serve(store: &Store, world: &Digest, fork: &str) -> Result<Line> {
    let socket = lazy::socket_of(world);
    let folder = Path::new(lazy::FOLDER);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .context(|| format!("make {}", folder.display()))?;
    // One starts it, whoever comes meanwhile waits.
    let lock = folder.join("lock");
    let lock = File::create(&lock).context(|| format!("open {}", lock.display()))?;
    flock(&lock, FlockOperation::LockExclusive).context(|| "wait for another fork")?;
    let sibling = format!("fork/{fork}");
    match Line::connect(&socket, &sibling) {
        Ok(line) => Ok(line),
        Err(_) => {
            start(store, world, &socket)?;
            Line::connect(&socket, &sibling)
        }
    }
}

fn start(store: &Store, world: &Digest, socket: &Path) -> Result<()> {
    let program = std::env::current_exe().context(|| "find this program")?;
    let log = socket.with_extension("log");
    let log = File::create(&log).context(|| format!("open {}", log.display()))?;
    let mut command = Command::new(program);
    command
        .args(["page-server", &world.to_string(), "--socket"])
        .arg(socket)
        .arg("--store")
        .arg(store.path())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    let setup = ChildSetup {
        new_session: true,
        ..ChildSetup::default()
    };
    crate::sys::set_up_child(&mut command, setup);
    let mut server = command.spawn().context(|| "start the page server")?;
    let mut said = String::new();
    if let Some(out) = server.stdout.take() {
        BufReader::new(out)
            .read_line(&mut said)
            .context(|| "hear from the page server")?;
    }
    if said.trim_end() == READY {
        return Ok(()); // It goes on without us.
    }
    let _ = server.wait();
    let words = std::fs::read_to_string(socket.with_extension("log")).unwrap_or_default();
    let last = words.lines().last().unwrap_or("it said nothing").to_owned();
    Err(Error::new(
        ErrorKind::Unavailable,
        format!("the page server did not start: {last}; --eager does without it"),
    ))
}
