//! The order in which things reach the disk, seen in the system calls: content before its
//! name, the names of blobs before the index, the index before its change is said to be done.
#![cfg(target_arch = "x86_64")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use worldshim::sys::trace;

use crate::steps::Watched;

/// Where the registers are in the kernel's `user_regs_struct`.
const R10: usize = 7;
const RAX: usize = 10;
const RDX: usize = 12;
const RSI: usize = 13;
const RDI: usize = 14;
const ORIG_RAX: usize = 15;

/// What a system call is about to do.
enum Call {
    Write(PathBuf),
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    Other,
}

/// The call before which the thread stands; `None` after a call.
fn call(watched: &Watched) -> Option<Call> {
    let bytes = trace::registers(watched.thread, trace::GENERAL).expect("its registers");
    let register = |at: usize| {
        let bytes = bytes[8 * at..8 * at + 8].try_into().expect("8 bytes");
        u64::from_le_bytes(bytes)
    };
    // What the kernel leaves there until the call has a result.
    if register(RAX) as i64 != -i64::from(libc::ENOSYS) {
        return None;
    }
    let proc = PathBuf::from(format!("/proc/{}", watched.thread));
    let open =
        |number: u64| fs::read_link(proc.join(format!("fd/{}", number as i32))).unwrap_or_default();
    let named = |folder: u64, name: u64| {
        let mut bytes = [0; 256];
        let memory = File::open(proc.join("mem")).expect("its memory");
        let count = memory.read_at(&mut bytes, name).expect("a name");
        let name = bytes[..count].split(|byte| *byte == 0).next();
        open(folder).join(std::str::from_utf8(name.unwrap()).expect("text"))
    };
    Some(match register(ORIG_RAX) as i64 {
        libc::SYS_write | libc::SYS_pwrite64 => Call::Write(open(register(RDI))),
        libc::SYS_fsync | libc::SYS_fdatasync => Call::Sync(open(register(RDI))),
        libc::SYS_renameat | libc::SYS_renameat2 => Call::Rename(
            named(register(RDI), register(RSI)),
            named(register(RDX), register(R10)),
        ),
        libc::SYS_rename | libc::SYS_link | libc::SYS_linkat => panic!("a call not looked at"),
        _ => Call::Other,
    })
}

/// What a loss of power would take away.
#[derive(Default)]
struct Unsynced {
    content: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
    renamed: usize,
}

impl Unsynced {
    fn see(&mut self, call: Call, store: &Path) {
        match call {
            Call::Write(path) if path.starts_with(store) => drop(self.content.insert(path)),
            // It says that a change is done.
            Call::Write(_) => assert_eq!(self.folders, BTreeSet::new()),
            Call::Sync(path) => {
                self.content.remove(&path);
                self.folders.remove(&path);
            }
            Call::Rename(from, to) => {
                assert!(
                    !self.content.contains(&from),
                    "{} to {}",
                    from.display(),
                    to.display()
                );
                if to.ends_with("index.json") {
                    assert_eq!(self.folders, BTreeSet::new(), "before the index");
                }
                self.folders
                    .insert(to.parent().expect("a folder").to_path_buf());
                self.renamed += 1;
            }
            Call::Other => {}
        }
    }
}

#[test]
fn content_is_on_the_disk_before_its_name_and_blobs_before_the_index() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let store = folder.path().join("store");
    let mut watched = Watched::start(&store);
    let mut unsynced = Unsynced::default();
    while watched.go_on() {
        if let Some(call) = call(&watched) {
            unsynced.see(call, &store);
        }
    }
    assert!(watched.end() > 5);
    assert!(unsynced.renamed > 15, "{} renames", unsynced.renamed);
}
