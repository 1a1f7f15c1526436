//! Tasks that stand in vfork(2).
//!
//! Such a task cannot be stopped by a debugger before its child has executed
//! or ended, and the child is stopped: CRIU would wait for ever. The state
//! lasts well under a millisecond, so the cure is to let the container run on
//! for a moment and to freeze it anew.

use std::fs;

use super::tree::Process;

/// The system calls that can wait like vfork: `(number, kind)`.
#[cfg(target_arch = "x86_64")]
const CALLS: [(u64, Call); 3] = [(58, Call::Vfork), (56, Call::Clone), (435, Call::Clone3)];
#[cfg(not(target_arch = "x86_64"))]
const CALLS: [(u64, Call); 2] = [(220, Call::Clone), (435, Call::Clone3)];

const CLONE_VFORK: u64 = 0x4000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Vfork,
    /// Flags in the first argument.
    Clone,
    /// Flags in the first word that the first argument points to.
    Clone3,
}

/// The first process with a task that stands in vfork. The processes must be frozen.
pub(super) fn find(processes: &[Process]) -> Option<&Process> {
    processes.iter().find(|process| {
        let tasks = fs::read_dir(format!("/proc/{}/task", process.host_pid));
        let mut tasks = tasks.into_iter().flatten().flatten();
        tasks.any(|task| {
            let text = fs::read_to_string(task.path().join("syscall")).unwrap_or_default();
            waits(&text, |address| read_word(process.host_pid, address))
        })
    })
}

/// Whether /proc/PID/syscall (`NUMBER 0xARG0 … 0xSP 0xPC`) tells of a vfork.
fn waits(syscall: &str, word_at: impl Fn(u64) -> Option<u64>) -> bool {
    let mut words = syscall.split_whitespace();
    let number = words.next().and_then(|word| word.parse::<u64>().ok());
    let first = words
        .next()
        .and_then(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok())
        .unwrap_or(0);
    let call = CALLS.iter().find(|(known, _)| Some(*known) == number);
    let flags = match call.map(|(_, call)| call) {
        Some(Call::Vfork) => CLONE_VFORK,
        Some(Call::Clone) => first,
        Some(Call::Clone3) => word_at(first).unwrap_or(0),
        None => 0,
    };
    flags & CLONE_VFORK != 0
}

fn read_word(pid: i32, address: u64) -> Option<u64> {
    use std::os::unix::fs::FileExt;
    let memory = fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut word = [0; 8];
    memory.read_exact_at(&mut word, address).ok()?;
    Some(u64::from_ne_bytes(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn only_a_vfork_waits() {
        let flags = |address: u64| (address == 0x7ff0).then_some(0x4100);
        assert!(waits("58 0x0 0x1 0x2 0x3 0x4 0x5 0x7ffc 0x7f11", flags));
        assert!(waits("56 0x4111 0x1 0x2 0x3 0x4 0x5 0x7ffc 0x7f11", flags));
        assert!(waits(
            "435 0x7ff0 0x58 0x2 0x3 0x4 0x5 0x7ffc 0x7f11",
            flags
        ));
        assert!(!waits(
            "56 0x1200011 0x1 0x2 0x3 0x4 0x5 0x7ffc 0x7f11",
            flags
        ));
        assert!(!waits(
            "435 0x8000 0x58 0x2 0x3 0x4 0x5 0x7ffc 0x7f11",
            flags
        ));
        assert!(!waits(
            "230 0x4000 0x0 0x2 0x3 0x4 0x5 0x7ffc 0x7f11",
            flags
        ));
        assert!(!waits("running", flags));
    }
}
