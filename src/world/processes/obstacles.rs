//! What CRIU cannot take and does not say well: it is looked for before the
//! dump, so that the error names the process.
//!
//! A traced task is the worst of them. In a frozen cgroup CRIU takes it for a
//! zombie and tries again until its time is over, with the container frozen.

use std::fs;
use std::path::Path;

use super::tree::Process;
use crate::error::{Error, ErrorKind, Result};

/// Descriptors that cannot be captured, by their links in /proc: the kernel
/// hands none of them over to CRIU.
const DESCRIPTORS: [(&str, &str); 1] = [("anon_inode:[io_uring]", "io_uring")];

/// Fails at the first process that has such a thing. They must be frozen.
pub(super) fn refuse(processes: &[Process], others: &[Process]) -> Result<()> {
    for process in processes.iter().chain(others) {
        if let Some(tracer) = tracer(process) {
            return Err(obstacle(
                process,
                &format!("is traced by process {tracer}, a debugger perhaps: end that first"),
            ));
        }
    }
    for process in processes {
        if let Some(what) = descriptor(process) {
            return Err(obstacle(
                process,
                &format!("uses {what}, which cannot be captured"),
            ));
        }
    }
    Ok(())
}

fn obstacle(process: &Process, what: &str) -> Error {
    let (pid, host_pid, comm) = (process.pid, process.host_pid, &process.comm);
    let text = format!("process {pid} ({comm}, {host_pid} on the host) {what}");
    Error::new(ErrorKind::Obstacle, text)
}

/// Who traces one of the process's tasks.
fn tracer(process: &Process) -> Option<i32> {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.host_pid));
    let mut tasks = tasks.into_iter().flatten().flatten();
    tasks.find_map(|task| traced_by(&task.path().join("status")))
}

fn traced_by(status: &Path) -> Option<i32> {
    let text = fs::read(status).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let tracer = text
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"));
    tracer?.trim().parse().ok().filter(|pid| *pid != 0)
}

fn descriptor(process: &Process) -> Option<&'static str> {
    let entries = fs::read_dir(format!("/proc/{}/fd", process.host_pid));
    let links = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok());
    links
        .filter_map(|link| {
            let known = DESCRIPTORS.iter().find(|(name, _)| link == Path::new(name));
            known.map(|(_, what)| *what)
        })
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::processes::tree;

    #[test]
    fn nothing_is_wrong_with_ourselves() {
        let pid = std::process::id().cast_signed();
        refuse(&tree::below(pid).unwrap(), &[]).unwrap();
    }

    #[test]
    fn a_tracer_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, found) in [
            ("Name:\tx\nTracerPid:\t0\n", None),
            ("Name:\tx\nTracerPid:\t17\n", Some(17)),
            ("", None),
        ] {
            fs::write(file.path(), text).unwrap();
            assert_eq!(traced_by(file.path()), found);
        }
    }
}
