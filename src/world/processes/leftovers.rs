//! What a killed CRIU left in a process: descriptors (its log, a socket) and
//! the memory of its code. Taken away by having the process itself close and
//! unmap them, while we hold it stopped.
//!
//! No code of the process has run since it was noted, so whatever is there now
//! and was not then is CRIU's.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use crate::sys::trace::{self, Change};

/// How long one system call may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The descriptors and mappings of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Belongings {
    descriptors: BTreeSet<u64>,
    mappings: BTreeSet<(u64, u64)>,
}

impl Belongings {
    /// Empty for a process that is gone.
    pub(super) fn of(process: i32) -> Belongings {
        let names = fs::read_dir(format!("/proc/{process}/fd"));
        let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
        Belongings {
            descriptors: names
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
                .collect(),
            mappings: maps.lines().filter_map(range).collect(),
        }
    }

    /// Takes away what the process has beyond these. Its main task is stopped,
    /// has the registers `general`, and `code` is an executable address in it.
    pub(super) fn restore(&self, process: i32, general: &[u8], code: u64) -> io::Result<()> {
        let now = Belongings::of(process);
        let memory = File::options()
            .read(true)
            .write(true)
            .open(format!("/proc/{process}/mem"))?;
        let caller = Caller {
            process,
            general,
            code,
            memory,
        };
        for descriptor in now.descriptors.difference(&self.descriptors) {
            caller.call(abi::CLOSE, *descriptor, 0)?;
        }
        for (start, end) in now.mappings.difference(&self.mappings) {
            // A mapping that merely changed its bounds is the process's own.
            let overlaps = |(from, to): &&(u64, u64)| from < end && start < to;
            if !self.mappings.iter().any(|known| overlaps(&known)) {
                caller.call(abi::MUNMAP, *start, end - start)?;
            }
        }
        Ok(())
    }
}

/// The bounds of a mapping: `START-END …`.
fn range(line: &str) -> Option<(u64, u64)> {
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    let number = |hex| u64::from_str_radix(hex, 16).ok();
    Some((number(start)?, number(end)?))
}

/// A stopped process that makes system calls for us.
struct Caller<'a> {
    process: i32,
    general: &'a [u8],
    code: u64,
    memory: File,
}

impl Caller<'_> {
    fn call(&self, number: u64, first: u64, second: u64) -> io::Result<()> {
        let Some(registers) = abi::registers(self.general, self.code, number, first, second) else {
            return Ok(()); // A processor that this is not written for.
        };
        let mut own = [0; abi::CODE.len()];
        self.memory.read_exact_at(&mut own, self.code)?;
        let mask = trace::signal_mask(self.process)?;
        self.memory.write_all_at(&abi::CODE, self.code)?;
        let called = self.run(&registers);
        self.memory.write_all_at(&own, self.code)?;
        trace::set_registers(self.process, trace::GENERAL, self.general)?;
        trace::set_signal_mask(self.process, mask)?;
        called
    }

    fn run(&self, registers: &[u8]) -> io::Result<()> {
        let but_breakpoints = !(1u64 << (libc::SIGTRAP - 1));
        trace::set_signal_mask(self.process, but_breakpoints)?;
        trace::set_registers(self.process, trace::GENERAL, registers)?;
        trace::resume(self.process, 0)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match trace::wait(self.process, false)? {
                Some(Change::Ended(_)) => return Err(io::Error::from_raw_os_error(libc::ESRCH)),
                Some(Change::Stopped { .. }) => return Ok(()),
                None if Instant::now() > deadline => return Err(io::ErrorKind::TimedOut.into()),
                None => std::thread::sleep(Duration::from_micros(20)),
            }
        }
    }
}

/// How a system call is made on this processor.
#[cfg(target_arch = "x86_64")]
mod abi {
    pub const CLOSE: u64 = 3;
    pub const MUNMAP: u64 = 11;
    /// `syscall; int3`
    pub const CODE: [u8; 3] = [0x0f, 0x05, 0xcc];

    /// The registers (`struct user_regs_struct`) with which a call is made.
    pub fn registers(own: &[u8], code: u64, number: u64, a: u64, b: u64) -> Option<Vec<u8>> {
        let mut changed = own.to_vec();
        // rsi, rdi, "not in a call", rip, rax
        for (index, value) in [(13, b), (14, a), (15, u64::MAX), (16, code), (10, number)] {
            let at = index * 8;
            changed
                .get_mut(at..at + 8)?
                .copy_from_slice(&value.to_ne_bytes());
        }
        Some(changed)
    }
}

/// Not written for this processor: nothing is called.
#[cfg(not(target_arch = "x86_64"))]
mod abi {
    pub const CLOSE: u64 = 0;
    pub const MUNMAP: u64 = 0;
    pub const CODE: [u8; 3] = [0; 3];

    pub fn registers(_: &[u8], _: u64, _: u64, _: u64, _: u64) -> Option<Vec<u8>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_belongings_are_read() {
        let own = Belongings::of(std::process::id().cast_signed());
        assert!(!own.descriptors.is_empty() && !own.mappings.is_empty());
        assert_eq!(Belongings::of(-1), Belongings::default());
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn too_few_registers_make_no_call() {
        assert_eq!(abi::registers(&[0; 8], 0, abi::CLOSE, 1, 2), None);
        assert!(abi::registers(&[0; 216], 0, abi::CLOSE, 1, 2).is_some());
    }
}
