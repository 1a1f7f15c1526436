//! Finding a container's shim, its helper, and CRIU, and ending them.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// A process: its id, its parent's, its name and its command line.
struct Process {
    pid: i32,
    parent: i32,
    name: String,
    command: String,
}

impl Process {
    /// By its name: at work, CRIU writes what it does over its command line.
    fn is_criu(&self) -> bool {
        self.name == "criu"
    }
}

fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("list /proc");
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(read).collect()
}

fn read(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut after_name = stat.rsplit(')').next()?.split_whitespace();
    let state = after_name.next()?;
    if state == "Z" {
        return None;
    }
    let parent = after_name.next()?.parse().ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command)
        .replace('\0', " ")
        .trim()
        .to_owned();
    let name = stat.split_once('(')?.1.rsplit_once(')')?.0.to_owned();
    Some(Process {
        pid,
        parent,
        name,
        command,
    })
}

/// The shim of a container that has one to itself.
pub fn shim_of(id: &str) -> Option<i32> {
    let wanted = format!(" -id {id} ");
    let shim = all().into_iter().find(|process| {
        let command = format!("{} ", process.command);
        command.contains("containerd-shim-world-v1 ") && command.contains(&wanted)
    });
    shim.map(|shim| shim.pid)
}

/// The helper that works for the container at this moment.
pub fn helper_of(id: &str) -> Option<i32> {
    let shim = shim_of(id)?;
    let is_helper =
        |process: &Process| process.parent == shim && process.command.ends_with(" helper");
    all()
        .iter()
        .find(|process| is_helper(process))
        .map(|process| process.pid)
}

/// The CRIU that works for the container at this moment.
pub fn criu_of(id: &str) -> Option<i32> {
    let helper = helper_of(id)?;
    let is_criu = |process: &Process| process.parent == helper && process.is_criu();
    all()
        .iter()
        .find(|process| is_criu(process))
        .map(|process| process.pid)
}

/// The CRIU that dumps the container at this moment, and does not just tell its version.
pub fn dumping_criu_of(id: &str) -> Option<i32> {
    let mark = format!(
        "{}/{id}/world/checkpoint/criu.pid",
        super::container::BUNDLES
    );
    fs::read_to_string(mark).ok()?.trim().parse().ok()
}

/// A CRIU that has this folder, or a file in it, open.
pub fn criu_anywhere_in(folder: &std::path::Path) -> Option<i32> {
    let uses = |process: &Process| {
        let files = fs::read_dir(format!("/proc/{}/fd", process.pid))
            .into_iter()
            .flatten()
            .flatten();
        let mut links = files.filter_map(|file| fs::read_link(file.path()).ok());
        process.is_criu() && links.any(|link| link.starts_with(folder))
    };
    all()
        .iter()
        .find(|process| uses(process))
        .map(|process| process.pid)
}

/// SIGKILL. False where there is no such process any more.
pub fn kill(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
}
