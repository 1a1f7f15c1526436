//! A process of a dump.

use std::sync::Arc;

use super::file::File;
use super::files::Files;
use super::image::{Images, damaged, decode};
use super::message::{Core, Descriptor, FileSystem, Ids};
use super::region::{self, Region};
use crate::Result;
use crate::criu::images::ImageProcess;

const CORE_MAGIC: u32 = 0x5505_3847;
const IDS_MAGIC: u32 = 0x5443_2030;
const FDINFO_MAGIC: u32 = 0x5621_3732;
const FS_MAGIC: u32 = 0x5140_3912;
/// The kernel's FD_CLOEXEC.
const CLOSE_ON_EXEC: u32 = 1;

/// What a process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Running or waiting.
    Alive,
    /// Stopped by a signal.
    Stopped,
    /// Ended; its parent has not asked for its status.
    Zombie,
    /// Something else, by CRIU's number.
    Other(u32),
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id in the container.
    pub pid: u32,
    /// Its parent's, 0 for the root.
    pub parent: u32,
    /// Its process group's.
    pub group: u32,
    /// Its session's.
    pub session: u32,
    /// How many threads it has, its first among them.
    pub threads: u32,
    /// What it is called: at most 15 bytes.
    pub command: Vec<u8>,
    /// What it is doing.
    pub state: State,
    /// Effective user id.
    pub uid: Option<u32>,
    /// Effective group id.
    pub gid: Option<u32>,
    /// The program's path.
    pub executable: Option<Arc<[u8]>>,
    /// Its working directory.
    pub cwd: Option<Arc<[u8]>>,
    /// Its root directory.
    pub root: Option<Arc<[u8]>>,
    /// Its memory, by rising address; a zombie has none.
    pub regions: Vec<Region>,
    /// Its open files, by rising descriptor.
    pub files: Vec<OpenFile>,
}

/// An open file of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenFile {
    /// The descriptor's number.
    pub fd: u32,
    /// Whether it closes when another program is run.
    pub close_on_exec: bool,
    /// What is open there.
    pub file: Arc<File>,
}

/// Reads a process of the tree.
pub(super) fn read(images: &Images, files: &Files, entry: &ImageProcess) -> Result<Process> {
    let pid = entry.pid;
    let name = format!("core-{pid}.img");
    let core = images.message(&name, CORE_MAGIC)?;
    let core: Core = decode(&name, core.ok_or_else(|| damaged(&name, "is missing"))?)?;
    let task = core.task.unwrap_or_default();
    let credentials = core.thread.and_then(|thread| thread.credentials);
    let map = region::read(images, files, pid)?;
    let places = places(images, pid)?;
    let path = |id: u32| files.get(id).map(|file| file.name.clone());
    Ok(Process {
        pid,
        parent: entry.parent,
        group: entry.group,
        session: entry.session,
        threads: entry.threads.len() as u32,
        command: task.command,
        state: match task.state {
            1 => State::Alive,
            2 | 6 => State::Zombie,
            3 => State::Stopped,
            other => State::Other(other),
        },
        uid: credentials.as_ref().map(|credentials| credentials.user),
        gid: credentials.as_ref().map(|credentials| credentials.group),
        executable: map.executable.and_then(path),
        cwd: places.as_ref().and_then(|places| path(places.working_dir)),
        root: places.as_ref().and_then(|places| path(places.root)),
        regions: map.regions,
        files: open_files(images, files, pid)?,
    })
}

fn places(images: &Images, pid: u32) -> Result<Option<FileSystem>> {
    let name = format!("fs-{pid}.img");
    let message = images.message(&name, FS_MAGIC)?;
    message.map(|message| decode(&name, message)).transpose()
}

fn open_files(images: &Images, files: &Files, pid: u32) -> Result<Vec<OpenFile>> {
    let name = format!("ids-{pid}.img");
    let Some(ids) = images.message(&name, IDS_MAGIC)? else {
        return Ok(Vec::new());
    };
    let ids: Ids = decode(&name, ids)?;
    // Processes that share their descriptors have one image.
    let name = format!("fdinfo-{}.img", ids.files);
    let mut open = Vec::new();
    for message in images.messages(&name, FDINFO_MAGIC)? {
        let descriptor: Descriptor = decode(&name, message)?;
        let file = files
            .get(descriptor.id)
            .ok_or_else(|| damaged(&name, "names a file that files.img does not have"))?;
        open.push(OpenFile {
            fd: descriptor.number,
            close_on_exec: descriptor.flags & CLOSE_ON_EXEC != 0,
            file: file.clone(),
        });
    }
    open.sort_by_key(|open| open.fd);
    match open.windows(2).any(|pair| pair[0].fd == pair[1].fd) {
        true => Err(damaged(&name, "has a descriptor twice")),
        false => Ok(open),
    }
}
