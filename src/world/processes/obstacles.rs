//! What CRIU cannot take and does not say well: it is looked for before the
//! dump, so that the error names the process.
//!
//! Two tasks are the worst of them, as the container would stay frozen. In a
//! frozen cgroup, CRIU takes a traced one for a zombie and tries again until
//! its time is over. And whoever wants to trace one that a signal has stopped
//! waits for ever: the version 1 freezer of Linux 6.1 and newer keeps it from
//! the answer that ptrace waits for.

use std::fs;
use std::path::{Path, PathBuf};

use super::tree::Process;
use crate::error::{Error, ErrorKind, Result};

/// Descriptors that cannot be captured, by their links in /proc: the kernel
/// hands none of them over to CRIU.
const DESCRIPTORS: [(&str, &str); 1] = [("anon_inode:[io_uring]", "io_uring")];

/// Fails at the first process that has such a thing. They must be frozen, in
/// `freezer` if there is one.
pub(super) fn refuse(
    processes: &[Process],
    others: &[Process],
    freezer: Option<&Path>,
) -> Result<()> {
    let first_version = freezer.is_some_and(|cgroup| cgroup.join("freezer.state").exists());
    for process in processes.iter().chain(others) {
        if first_version && is_stopped(process) {
            return Err(obstacle(
                process,
                "is stopped by a signal, such as SIGSTOP, which cannot be captured with \
                 cgroup version 1: continue it first",
            ));
        }
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

/// The folders of the process's tasks.
fn tasks(process: &Process) -> impl Iterator<Item = PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.host_pid));
    tasks
        .into_iter()
        .flatten()
        .flatten()
        .map(|task| task.path())
}

/// The state of a frozen task tells nothing of that; the place where it waits does.
fn is_stopped(process: &Process) -> bool {
    tasks(process).any(|task| {
        let place = fs::read_to_string(task.join("wchan")).unwrap_or_default();
        place.starts_with("do_signal_stop")
    })
}

/// Who traces one of the process's tasks.
fn tracer(process: &Process) -> Option<i32> {
    tasks(process).find_map(|task| traced_by(&task.join("status")))
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
    let proc = PathBuf::from(format!("/proc/{}", process.host_pid));
    let entries = fs::read_dir(proc.join("fd"))
        .into_iter()
        .flatten()
        .flatten();
    let mut links =
        entries.filter_map(|entry| Some((entry.file_name(), fs::read_link(entry.path()).ok()?)));
    links.find_map(|(number, link)| {
        if let Some((_, what)) = DESCRIPTORS.iter().find(|(name, _)| link == Path::new(name)) {
            return Some(*what);
        }
        let is_semaphore = link == Path::new("anon_inode:[eventfd]")
            && fs::read_to_string(proc.join("fdinfo").join(number))
                .is_ok_and(|text| counts_down(&text));
        is_semaphore.then_some("an eventfd as a semaphore")
    })
}

/// Newer kernels tell; CRIU would bring it back as an ordinary one.
fn counts_down(fdinfo: &str) -> bool {
    let mut lines = fdinfo.lines().map(str::split_whitespace);
    lines.any(|mut words| words.next() == Some("eventfd-semaphore:") && words.next() == Some("1"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::processes::tree;

    #[test]
    fn nothing_is_wrong_with_ourselves() {
        let pid = std::process::id().cast_signed();
        refuse(&tree::below(pid).unwrap(), &[], None).unwrap();
    }

    #[test]
    fn a_semaphore_is_told_from_an_event() {
        assert!(counts_down(
            "pos:\t0\neventfd-count:  7\neventfd-semaphore: 1\n"
        ));
        assert!(!counts_down(
            "pos:\t0\neventfd-count:  1\neventfd-semaphore: 0\n"
        ));
        assert!(!counts_down(""));
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
