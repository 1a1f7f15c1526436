//! Standard streams that lead out of the container.
//!
//! CRIU knows a file from outside by a key; at a restore a descriptor of ours
//! under that key takes its place. A pipe's key is its link in /proc; any other
//! file is declared external, by mount and inode, when dumping.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use serde::{Deserialize, Serialize};

use super::mount_table::Mount;
use super::tree::Process;
use crate::error::{IoContext, Result};

/// A standard stream that led out of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StdioFile {
    /// 0, 1 or 2.
    pub fd: u8,
    /// The file's name in CRIU's images.
    pub key: String,
}

impl StdioFile {
    /// Whether CRIU must be told when dumping that the file is from outside.
    pub(super) fn is_declared(&self) -> bool {
        self.key.starts_with("file[")
    }
}

/// The streams 0 to 2 of `init` that lead out of the container.
pub(super) fn from_outside(
    init: i32,
    processes: &[Process],
    mounts: &[Mount],
) -> Result<Vec<StdioFile>> {
    let inner = pipes_within(processes);
    let mut found = Vec::new();
    for fd in 0..=2 {
        if let Some(key) = key_of(init, fd, &inner, mounts)? {
            found.push(StdioFile { fd, key });
        }
    }
    Ok(found)
}

fn key_of(init: i32, fd: u8, inner: &HashSet<String>, mounts: &[Mount]) -> Result<Option<String>> {
    let path = format!("/proc/{init}/fd/{fd}");
    let link = match std::fs::read_link(&path) {
        Ok(link) => link.to_string_lossy().into_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context(|| format!("read {path}")),
    };
    if link.starts_with("pipe:[") || link.starts_with("socket:[") {
        return Ok((!inner.contains(&link)).then_some(link));
    }
    let metadata = std::fs::metadata(&path).context(|| format!("look at {path}"))?;
    let kind = metadata.file_type();
    let mount = mount_id(init, fd)?;
    // A terminal's master is outside, but the terminal itself is the container's.
    let can_be_external = kind.is_file() || kind.is_fifo() || kind.is_char_device();
    let outside = !mounts.iter().any(|known| known.id == mount);
    let declared = can_be_external && outside;
    Ok(declared.then(|| format!("file[{mount:x}:{:x}]", metadata.ino())))
}

fn mount_id(pid: i32, fd: u8) -> Result<u64> {
    let path = format!("/proc/{pid}/fdinfo/{fd}");
    let text = std::fs::read_to_string(&path).context(|| format!("read {path}"))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    Ok(id.and_then(|id| id.trim().parse().ok()).unwrap_or(0))
}

/// Pipes of which the processes hold both ends.
fn pipes_within(processes: &[Process]) -> HashSet<String> {
    let mut ends: HashMap<String, (bool, bool)> = HashMap::new();
    for process in processes {
        let directory = format!("/proc/{}/fd", process.host_pid);
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let link = std::fs::read_link(entry.path()).unwrap_or_default();
            let Some(link) = link.to_str().filter(|link| link.starts_with("pipe:[")) else {
                continue;
            };
            // The link's own mode tells how the file was opened.
            let mode = entry.metadata().map_or(0, |link| link.mode());
            let (reads, writes) = ends.entry(link.to_owned()).or_default();
            *reads |= mode & 0o400 != 0;
            *writes |= mode & 0o200 != 0;
        }
    }
    ends.retain(|_, (reads, writes)| *reads && *writes);
    ends.into_keys().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::processes::tree;

    #[test]
    fn a_pipe_with_both_ends_here_is_within() {
        let (_reader, _writer) = std::io::pipe().unwrap();
        let path = format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&_reader)
        );
        let link = std::fs::read_link(path).unwrap();
        let pid = std::process::id().try_into().unwrap();
        let within = pipes_within(&tree::below(pid).unwrap());
        assert!(within.contains(link.to_str().unwrap()));
    }
}
