//! One page server per world of a store, started when the first sibling needs it.
//!
//! `/run/worldshim/pages/NAME.sock` is its socket, `NAME.log` what it logs, and
//! `NAME.lock` is locked while one starts or ends; NAME is the SHA-256 of the
//! store's path, a zero byte and the world's digest. The server leads a session
//! of its own and outlives whoever started it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, Rlimit};

use super::line;
use crate::digest::Digest;
use crate::error::IoContext;
use crate::sys::{ChildSetup, set_up_child};
use crate::{Error, ErrorKind, Result};

/// Where the sockets are.
pub const FOLDER: &str = "/run/worldshim/pages";
/// Most bytes of a log that become part of an error.
const MOST_LOG: u64 = 2000;

/// The name of the server of a world in the store at a canonical path.
pub fn name(store: &Path, world: &Digest) -> Digest {
    let key = [
        store.as_os_str().as_encoded_bytes(),
        b"\0",
        world.as_bytes(),
    ]
    .concat();
    Digest::of(&key)
}

/// Where the server of this name listens, if it runs.
pub fn socket_of(name: &Digest) -> PathBuf {
    Path::new(FOLDER).join(name.hex()).with_extension("sock")
}

/// Where the server of a world listens, if it runs.
pub fn socket(store: &Path, world: &Digest) -> PathBuf {
    socket_of(&name(store, world))
}

/// The socket of a world's server, which is started where none answers; `program` is the
/// `world` command. It then waits some seconds for the first sibling.
pub fn ensure(program: &Path, store: &Path, world: &Digest) -> Result<PathBuf> {
    let store = store
        .canonicalize()
        .context(|| format!("find {}", store.display()))?;
    let socket = socket(&store, world);
    if line::state(&socket).is_ok() {
        return Ok(socket);
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(FOLDER)
        .context(|| format!("make {FOLDER}"))?;
    let _lock = lock(&socket)?;
    if line::state(&socket).is_err() {
        let _ = std::fs::remove_file(&socket);
        start(program, &store, world, &socket)?;
    }
    Ok(socket)
}

fn lock(socket: &Path) -> Result<File> {
    let path = socket.with_extension("lock");
    let inode = |found: std::io::Result<std::fs::Metadata>| found.map(|it| it.ino()).ok();
    loop {
        let file = private().open(&path);
        let file = file.context(|| format!("open {}", path.display()))?;
        rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))
            .context(|| format!("lock {}", path.display()))?;
        // Whoever had it may have removed it.
        if inode(file.metadata()) == inode(std::fs::symlink_metadata(&path)) {
            return Ok(file);
        }
    }
}

fn private() -> std::fs::OpenOptions {
    let mut options = File::options();
    options.create(true).append(true).mode(0o600);
    options
}

fn start(program: &Path, store: &Path, world: &Digest, socket: &Path) -> Result<()> {
    let log = socket.with_extension("log");
    let _ = std::fs::remove_file(&log);
    let errors = private().open(&log);
    let mut command = Command::new(program);
    command
        .args(["-v", "page-server", "--store"])
        .arg(store)
        .arg("--socket")
        .arg(socket)
        .arg(world.to_string())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors.context(|| format!("make {}", log.display()))?);
    let setup = ChildSetup {
        new_session: true,
        ..ChildSetup::default()
    };
    set_up_child(&mut command, setup);
    let mut child = command
        .spawn()
        .context(|| format!("start {}", program.display()))?;
    let mut said = String::new();
    if let Some(out) = child.stdout.take() {
        let _ = BufReader::new(out.take(16)).read_line(&mut said);
    }
    if said == "ready\n" {
        return Ok(());
    }
    let _ = child.kill();
    let _ = child.wait();
    let mut text = String::new();
    let _ = File::open(&log).and_then(|file| file.take(MOST_LOG).read_to_string(&mut text));
    let text = format!("the page server did not start: {}", text.trim());
    Err(Error::new(ErrorKind::Unavailable, text))
}

/// What a server does before it serves: it is to end after the siblings that depend on it, and
/// holds a descriptor for each of their processes. Does what our privileges allow.
pub fn settle() {
    let _ = std::fs::write("/proc/self/oom_score_adj", "-999");
    // Threads stand still until it has done its work.
    let _ = rustix::process::setpriority_process(None, -10);
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let _ = rustix::process::setrlimit(Resource::Nofile, all);
}

/// A server's own socket; removed when dropped, unless another server has taken its place.
pub struct OwnSocket {
    path: PathBuf,
    inode: u64,
}

impl OwnSocket {
    /// The one at `path`, which exists.
    pub fn at(path: &Path) -> Result<OwnSocket> {
        let found = std::fs::symlink_metadata(path);
        Ok(OwnSocket {
            path: path.to_owned(),
            inode: found
                .context(|| format!("look at {}", path.display()))?
                .ino(),
        })
    }
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        let lock_path = self.path.with_extension("lock");
        let _lock = lock_path.exists().then(|| lock(&self.path));
        let found = std::fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| found.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
            let _ = std::fs::remove_file(self.path.with_extension("log"));
            let _ = std::fs::remove_file(lock_path);
        }
    }
}
