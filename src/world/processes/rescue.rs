//! Putting a container's tasks right after CRIU was killed while it held them.
//!
//! Before the dump every task is stopped once and its registers and signal mask
//! are noted, and the first bytes of executable mappings, where CRIU puts its
//! system calls. No task runs meanwhile: the cgroup is thawed only while all
//! are stopped. When CRIU is dying (it still holds them) the cgroup is frozen;
//! when it is dead, they are stopped again and given back what was theirs.
//!
//! What cannot be mended: a process other than its pid namespace's init that
//! has just run into CRIU's breakpoint. That signal's default action ends it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::leftovers::Belongings;
use super::tree;
use crate::criu::Death;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::sys::trace::{self, Change, Registers};

/// How long stopping or freezing may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a cgroup whose tasks are all stopped may take to be frozen.
const FREEZE_TIME: Duration = Duration::from_secs(1);
/// How many system calls CRIU's code in a task makes at most to clean up.
const LAST_CALLS: usize = 200;
/// CRIU writes a system call over the first bytes of an executable mapping.
const CODE_BYTES: usize = 32;

/// Where the instruction pointer, and the number of the system call at a stop
/// for one, lie in the general registers; and rt_sigreturn's number.
#[cfg(target_arch = "x86_64")]
const INSTRUCTION: Option<(usize, usize, u64)> = Some((128, 120, 15));
#[cfg(target_arch = "aarch64")]
const INSTRUCTION: Option<(usize, usize, u64)> = Some((256, 64, 139));
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const INSTRUCTION: Option<(usize, usize, u64)> = None;

/// What a container's tasks were like before CRIU came.
pub(super) struct Rescue {
    cgroup: PathBuf,
    processes: BTreeMap<i32, Code>,
    tasks: Vec<Task>,
    /// All tasks stand still since before CRIU let them go.
    held: bool,
}

/// The executable mappings of a process.
struct Code {
    mappings: Vec<(u64, u64)>,
    heads: Vec<(u64, [u8; CODE_BYTES])>,
    belongings: Belongings,
}

/// A task and what was in it.
struct Task {
    process: i32,
    id: i32,
    general: Registers,
    extended: Registers,
    mask: u64,
}

/// A task that is stopped by us, and the signal it is to get when let go.
struct Stopped {
    id: i32,
    signal: i32,
}

impl Rescue {
    /// Notes all tasks of a frozen freezer cgroup, and leaves it frozen.
    /// `None` on processors that this is not written for.
    pub(super) fn prepare(cgroup: &Path) -> Result<Option<Rescue>> {
        if INSTRUCTION.is_none() {
            return Ok(None);
        }
        // What a thread traces it lets go at its end, whatever went wrong.
        super::on_own_thread(|| Rescue::note(cgroup)).map(Some)
    }

    fn note(cgroup: &Path) -> Result<Rescue> {
        let mut ids = Vec::new();
        for process in tree::members(cgroup)? {
            ids.extend(threads(process).into_iter().map(|id| (process, id)));
        }
        let stopped = stop(cgroup, ids.iter().map(|(_, id)| *id))?;
        let there = |id: i32| stopped.iter().any(|task| task.id == id);
        let tasks = ids
            .iter()
            .filter(|(_, id)| there(*id))
            .filter_map(|(process, id)| Task::read(*process, *id).ok())
            .collect();
        freeze(cgroup, true)?;
        let_go(&stopped);
        wait_frozen(cgroup)?;
        Ok(Rescue {
            cgroup: cgroup.to_owned(),
            processes: ids
                .iter()
                .map(|(process, _)| (*process, Code::read(*process)))
                .collect(),
            tasks,
            held: false,
        })
    }

    /// What to do at CRIU's death.
    ///
    /// Tasks are given back their registers only when they were seen frozen
    /// while CRIU still held them. One that has run since would be thrown back
    /// to where it was: that is worse than anything CRIU leaves behind.
    pub(super) fn on_death(&mut self, death: Death) {
        let result = match death {
            Death::Near => freeze(&self.cgroup, true)
                .and_then(|()| wait_frozen(&self.cgroup))
                .map(|()| self.held = true),
            Death::Done if self.held => self.put_right(),
            Death::Done => Ok(()),
        };
        if let Err(error) = result {
            tracing::error!("after CRIU's death: {error}");
        }
    }

    fn put_right(&self) -> Result<()> {
        let stopped = stop(&self.cgroup, self.tasks.iter().map(|task| task.id))?;
        for (process, code) in &self.processes {
            code.put_back(*process);
        }
        for there in &stopped {
            if let Some(task) = self.tasks.iter().find(|task| task.id == there.id) {
                self.put_back(task).unwrap_or_else(|error| {
                    tracing::error!("task {} cannot be put right: {error}", task.id);
                });
            }
        }
        for there in &stopped {
            self.take_leftovers(there.id).unwrap_or_else(|error| {
                tracing::error!("process {} keeps something of CRIU's: {error}", there.id);
            });
        }
        freeze(&self.cgroup, true)?;
        let_go(&stopped);
        wait_frozen(&self.cgroup)
    }

    /// For a process's main task; others share what it has.
    fn take_leftovers(&self, id: i32) -> io::Result<()> {
        let main = self
            .tasks
            .iter()
            .find(|task| task.id == id && task.process == id);
        let (Some(main), Some(code)) = (main, self.processes.get(&id)) else {
            return Ok(());
        };
        match code.heads.first() {
            Some((start, _)) => code.belongings.restore(id, &main.general, *start),
            None => Ok(()),
        }
    }

    fn put_back(&self, task: &Task) -> io::Result<()> {
        let now = trace::registers(task.id, trace::GENERAL)?;
        let mask = trace::signal_mask(task.id)?;
        if now == task.general && mask == task.mask {
            return Ok(());
        }
        let code = self.processes.get(&task.process);
        let in_own_code = code.is_none_or(|code| code.holds(instruction(&now)));
        if task.id == task.process && !in_own_code {
            finish_foreign_code(task.id)?;
        }
        trace::set_registers(task.id, trace::GENERAL, &task.general)?;
        trace::set_registers(task.id, trace::EXTENDED, &task.extended)?;
        trace::set_signal_mask(task.id, task.mask)
    }
}

impl Task {
    fn read(process: i32, id: i32) -> io::Result<Task> {
        Ok(Task {
            process,
            id,
            general: trace::registers(id, trace::GENERAL)?,
            extended: trace::registers(id, trace::EXTENDED)?,
            mask: trace::signal_mask(id)?,
        })
    }
}

impl Code {
    /// Empty for a process that is gone.
    fn read(process: i32) -> Code {
        let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
        let mappings: Vec<(u64, u64)> = maps.lines().filter_map(executable).collect();
        let mut heads = Vec::new();
        if let Ok(memory) = fs::File::open(format!("/proc/{process}/mem")) {
            for (start, _) in &mappings {
                let mut head = [0; CODE_BYTES];
                if memory.read_exact_at(&mut head, *start).is_ok() {
                    heads.push((*start, head));
                }
            }
        }
        Code {
            mappings,
            heads,
            belongings: Belongings::of(process),
        }
    }

    fn holds(&self, address: u64) -> bool {
        let mut mappings = self.mappings.iter();
        mappings.any(|(start, end)| (*start..*end).contains(&address))
    }

    /// Takes away what CRIU may have written over the code.
    fn put_back(&self, process: i32) {
        let path = format!("/proc/{process}/mem");
        let Ok(memory) = fs::File::options().read(true).write(true).open(path) else {
            return;
        };
        for (start, head) in &self.heads {
            let mut now = [0; CODE_BYTES];
            if memory.read_exact_at(&mut now, *start).is_ok() && now != *head {
                let _ = memory.write_all_at(head, *start);
            }
        }
    }
}

/// The bounds of an executable mapping: `START-END r-xp …`.
fn executable(line: &str) -> Option<(u64, u64)> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let number = |hex| u64::from_str_radix(hex, 16).ok();
    rest.get(2..3)
        .filter(|x| *x == "x")
        .and_then(|_| Some((number(start)?, number(end)?)))
}

fn threads(process: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task"));
    let names = tasks.into_iter().flatten().flatten();
    names
        .filter_map(|task| task.file_name().to_str()?.parse().ok())
        .collect()
}

/// Stops tasks of a frozen cgroup, thawing it: none of them runs.
fn stop(cgroup: &Path, ids: impl Iterator<Item = i32>) -> Result<Vec<Stopped>> {
    let seized: Vec<i32> = ids
        .filter(|id| {
            let seized = trace::seize(*id, libc::PTRACE_O_TRACESYSGOOD);
            seized.and_then(|()| trace::interrupt(*id)).is_ok()
        })
        .collect();
    freeze(cgroup, false)?;
    let deadline = Instant::now() + PATIENCE;
    let mut stopped = Vec::with_capacity(seized.len());
    for id in seized {
        if let Some(signal) = wait_stopped(id, deadline).context(|| format!("stop task {id}"))? {
            stopped.push(Stopped { id, signal });
        }
    }
    Ok(stopped)
}

/// Waits until a task stops; gives the signal that it was about to get, `None`
/// when it is gone.
fn wait_stopped(id: i32, deadline: Instant) -> io::Result<Option<i32>> {
    loop {
        match trace::wait(id, false) {
            Ok(Some(Change::Stopped { event: 0, signal })) if signal != libc::SIGTRAP => {
                return Ok(Some(signal & !0x80).map(|signal| match signal {
                    libc::SIGTRAP => 0, // A stop at a system call.
                    signal => signal,
                }));
            }
            // Ours, or CRIU's breakpoint.
            Ok(Some(Change::Stopped { .. })) => return Ok(Some(0)),
            Ok(Some(Change::Ended(_))) => return Ok(None),
            Ok(None) if Instant::now() > deadline => return Err(io::ErrorKind::TimedOut.into()),
            Ok(None) => std::thread::sleep(Duration::from_micros(50)),
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

fn let_go(stopped: &[Stopped]) {
    for task in stopped {
        let _ = trace::detach(task.id, task.signal);
    }
}

/// Lets CRIU's code in a task come to its end: its connection to CRIU is gone,
/// so that it cleans up and returns, or gives up with a breakpoint.
fn finish_foreign_code(id: i32) -> io::Result<()> {
    let Some((_, call, sigreturn)) = INSTRUCTION else {
        return Ok(());
    };
    let deadline = Instant::now() + PATIENCE;
    for _ in 0..LAST_CALLS {
        trace::resume_to_call(id)?;
        match next_stop(id, deadline)? {
            Change::Stopped { signal, .. } if signal == libc::SIGTRAP | 0x80 => {
                let registers = trace::registers(id, trace::GENERAL)?;
                if word(&registers, call) == sigreturn {
                    trace::resume_to_call(id)?;
                    next_stop(id, deadline)?;
                    return Ok(());
                }
            }
            Change::Stopped {
                signal: libc::SIGTRAP,
                event: 0,
            } => return Ok(()),
            Change::Stopped { .. } => {}
            Change::Ended(_) => return Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    }
    Ok(())
}

fn next_stop(id: i32, deadline: Instant) -> io::Result<Change> {
    loop {
        match trace::wait(id, false)? {
            Some(change) => return Ok(change),
            None if Instant::now() > deadline => return Err(io::ErrorKind::TimedOut.into()),
            None => std::thread::sleep(Duration::from_micros(20)),
        }
    }
}

fn instruction(registers: &[u8]) -> u64 {
    INSTRUCTION.map_or(0, |(at, _, _)| word(registers, at))
}

fn word(registers: &[u8], at: usize) -> u64 {
    let bytes = registers.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

/// Asks a freezer cgroup of version 1 or 2; does not wait.
fn freeze(cgroup: &Path, frozen: bool) -> Result<()> {
    let v1 = cgroup.join("freezer.state");
    let (path, word) = match (v1.exists(), frozen) {
        (true, true) => (v1, "FROZEN"),
        (true, false) => (v1, "THAWED"),
        (false, true) => (cgroup.join("cgroup.freeze"), "1"),
        (false, false) => (cgroup.join("cgroup.freeze"), "0"),
    };
    fs::write(&path, word).context(|| format!("write {}", path.display()))
}

/// Waits a short while until all tasks stand still.
fn wait_frozen(cgroup: &Path) -> Result<()> {
    let deadline = Instant::now() + FREEZE_TIME;
    loop {
        let read = |name: &str| fs::read_to_string(cgroup.join(name)).unwrap_or_default();
        if read("freezer.state").starts_with("FROZEN") || read("cgroup.events").contains("frozen 1")
        {
            return Ok(());
        }
        if Instant::now() > deadline {
            let text = format!("cgroup {} does not come to rest", cgroup.display());
            return Err(Error::new(ErrorKind::Timeout, text));
        }
        std::thread::sleep(Duration::from_micros(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executable_mappings_are_found() {
        let line = "55d0-55f0 r-xp 00000000 fe:00 1 /usr/bin/x";
        assert_eq!(executable(line), Some((0x55d0, 0x55f0)));
        assert_eq!(
            executable("55d0-55f0 rw-p 00000000 fe:00 1 /usr/bin/x"),
            None
        );
        assert_eq!(executable("garbage"), None);
    }

    #[test]
    fn our_own_code_holds_this_function() {
        let code = Code::read(std::process::id().cast_signed());
        let here = our_own_code_holds_this_function as fn() as usize as u64;
        assert!(code.holds(here));
        assert!(!code.holds(0));
        assert!(!code.heads.is_empty());
    }
}
