//! The processes of a container, read from /proc while they stand still.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{IoContext, Result};

/// One process of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Its id in the container's pid namespace.
    pub pid: i32,
    /// Its id as this process sees it, at the time of the dump.
    pub host_pid: i32,
    /// Host id of its parent.
    pub host_parent: i32,
    /// How many threads it has.
    pub threads: u32,
    /// Its name, cut to 15 bytes by the kernel.
    pub comm: String,
}

/// `init` and all that descend from it, parents before children.
pub(super) fn below(init: i32) -> Result<Vec<Process>> {
    let mut found = vec![read(init)?];
    let mut next = 0;
    while let Some(process) = found.get(next) {
        for child in children(process.host_pid)? {
            found.push(read(child)?);
        }
        next += 1;
    }
    Ok(found)
}

/// Processes of the cgroup (and those below it) that are not in `tree`.
pub(super) fn others(cgroup: &Path, tree: &[Process]) -> Result<Vec<Process>> {
    let known: BTreeSet<i32> = tree.iter().map(|process| process.host_pid).collect();
    Ok(members(cgroup)?
        .difference(&known)
        .filter_map(|pid| read(*pid).ok()) // A zombie may go away while we look.
        .collect())
}

/// Ids of the processes of a cgroup and of those below it.
pub(super) fn members(cgroup: &Path) -> Result<BTreeSet<i32>> {
    let mut pids = BTreeSet::new();
    add_members(cgroup, &mut pids)?;
    Ok(pids)
}

fn add_members(cgroup: &Path, pids: &mut BTreeSet<i32>) -> Result<()> {
    let procs = cgroup.join("cgroup.procs");
    let text = std::fs::read_to_string(&procs).context(|| format!("read {}", procs.display()))?;
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    let entries = std::fs::read_dir(cgroup).context(|| format!("list {}", cgroup.display()))?;
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            add_members(&entry.path(), pids)?;
        }
    }
    Ok(())
}

fn children(pid: i32) -> Result<Vec<i32>> {
    let tasks = format!("/proc/{pid}/task");
    let mut children = Vec::new();
    for task in std::fs::read_dir(&tasks)
        .context(|| format!("list {tasks}"))?
        .flatten()
    {
        let path = task.path().join("children");
        let text = std::fs::read_to_string(&path).context(|| format!("read {}", path.display()))?;
        children.extend(
            text.split_whitespace()
                .filter_map(|word| word.parse::<i32>().ok()),
        );
    }
    Ok(children)
}

fn read(pid: i32) -> Result<Process> {
    let path = format!("/proc/{pid}/status");
    let bytes = std::fs::read(&path).context(|| format!("read {path}"))?;
    let text = String::from_utf8_lossy(&bytes);
    let field = |name: &str| -> &str {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or("", str::trim)
    };
    let last_number = |words: &str| {
        words
            .split_whitespace()
            .last()
            .and_then(|word| word.parse().ok())
    };
    Ok(Process {
        pid: last_number(field("NSpid:")).unwrap_or(pid),
        host_pid: pid,
        host_parent: last_number(field("PPid:")).unwrap_or(0),
        threads: field("Threads:").parse().unwrap_or(1),
        comm: field("Name:").to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_is_read() {
        let pid = std::process::id().try_into().unwrap();
        let tree = below(pid).unwrap();
        assert_eq!(tree[0].host_pid, pid);
        assert!(tree[0].threads >= 1);
        assert!(!tree[0].comm.is_empty());
    }
}
