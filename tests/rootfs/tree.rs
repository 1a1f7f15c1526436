//! Random directory trees of everything that a writable layer may hold.

use proptest::collection::vec;
use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, XattrFlags, lsetxattr, mknodat};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What to make in a tree, in order.
#[derive(Debug, Clone)]
pub struct Step {
    parent: prop::sample::Index,
    name: Vec<u8>,
    what: What,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, u32),
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, Clone)]
enum What {
    Directory {
        opaque: bool,
        default_acl: bool,
    },
    /// Pairs of a hole's and a stretch of data's length, and a hole at the end.
    File {
        parts: Vec<(u64, u64)>,
        tail: u64,
        capability: bool,
    },
    Symlink(Vec<u8>),
    Hardlink(prop::sample::Index),
    Device {
        block: bool,
        number: (u32, u32),
    },
    Fifo,
    Socket,
    Whiteout,
}

pub fn trees() -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 0..40)
}

fn step() -> impl Strategy<Value = Step> {
    (
        any::<prop::sample::Index>(),
        name(),
        what(),
        0u32..0o10000,
        (id(), id()),
        (
            -2_000_000_000i64..10_000_000_000,
            prop_oneof![Just(0), 0u32..1_000_000_000],
        ),
        vec((xattr_name(), vec(any::<u8>(), 0..200)), 0..4),
    )
        .prop_map(|(parent, name, what, mode, owner, mtime, xattrs)| Step {
            parent,
            name,
            what,
            mode,
            owner,
            mtime,
            xattrs,
        })
}

/// Bytes that a path may hold, separators turned into something else.
fn bytes(length: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'\n'), Just(b'='), Just(b'a'), Just(0xff), 1u8..];
    vec(byte, length)
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => bytes(1..6), 1 => bytes(90..256)].prop_map(|mut name| {
        name.iter_mut()
            .filter(|b| **b == b'/')
            .for_each(|b| *b = b'-');
        if name == b"." || name == b".." || name.starts_with(b".wh.") {
            name[0] = b'x';
        }
        name
    })
}

fn xattr_name() -> impl Strategy<Value = Vec<u8>> {
    bytes(1..20).prop_map(|tail| [&b"trusted."[..], &tail].concat())
}

fn id() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(0),
        0u32..70_000,
        2_097_150u32..2_097_155,
        0u32..u32::MAX
    ]
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        6 => (any::<bool>(), any::<bool>()).prop_map(|(opaque, default_acl)| What::Directory { opaque, default_acl }),
        8 => (vec((0u64..40_000, 1u64..20_000), 0..4), 0u64..50_000, any::<bool>())
            .prop_map(|(parts, tail, capability)| What::File { parts, tail, capability }),
        2 => (vec(Just((0, 1000)), 0..2), Just(0), any::<bool>())
            .prop_map(|(parts, tail, capability)| What::File { parts, tail, capability }),
        3 => prop_oneof![bytes(1..20), bytes(95..300)].prop_map(What::Symlink),
        4 => any::<prop::sample::Index>().prop_map(What::Hardlink),
        1 => (any::<bool>(), (1u32..4096, 0u32..1 << 20)).prop_map(|(block, number)| What::Device { block, number }),
        1 => Just(What::Fifo),
        1 => Just(What::Socket),
        2 => Just(What::Whiteout),
    ]
}

/// Makes the tree in `root`, which is empty.
pub fn build(root: &Path, steps: &[Step]) {
    let mut dirs = vec![root.to_path_buf()];
    let mut links: Vec<PathBuf> = Vec::new();
    let mut used = HashSet::new();
    let mut finish: Vec<(PathBuf, &Step)> = Vec::new();
    for step in steps {
        let path = step.parent.get(&dirs).join(OsStr::from_bytes(&step.name));
        if !used.insert(path.clone()) {
            continue;
        }
        match &step.what {
            What::Hardlink(_) if links.is_empty() => continue,
            What::Hardlink(index) => {
                let target = index.get(&links);
                rustix::fs::linkat(CWD, target, CWD, &path, AtFlags::empty()).unwrap();
                continue;
            }
            What::Whiteout => {
                mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
                continue;
            }
            what => make(&path, what),
        }
        match step.what {
            What::Directory { .. } => dirs.push(path.clone()),
            _ => links.push(path.clone()),
        }
        finish.push((path, step));
    }
    for (path, step) in finish.iter().rev() {
        finish_one(path, step);
    }
}

fn make(path: &Path, what: &What) {
    match what {
        What::Directory { .. } => std::fs::create_dir(path).unwrap(),
        What::File { parts, tail, .. } => {
            let file = std::fs::File::create_new(path).unwrap();
            let mut at = 0;
            for (hole, data) in parts {
                at += hole;
                let bytes: Vec<u8> = (0..*data).map(|i| ((at + i) % 251) as u8).collect();
                file.write_all_at(&bytes, at).unwrap();
                at += data;
            }
            file.set_len(at + tail).unwrap();
        }
        What::Symlink(target) => rustix::fs::symlinkat(&target[..], CWD, path).unwrap(),
        What::Device { block, number } => {
            let kind = match block {
                true => FileType::BlockDevice,
                false => FileType::CharacterDevice,
            };
            let number = rustix::fs::makedev(number.0, number.1);
            mknodat(CWD, path, kind, Mode::RUSR, number).unwrap();
        }
        What::Fifo => mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap(),
        What::Socket => mknodat(CWD, path, FileType::Socket, Mode::RUSR, 0).unwrap(),
        What::Hardlink(_) | What::Whiteout => unreachable!("made by the caller"),
    }
}

/// Owner, mode, attributes and time, after all that is inside was made.
fn finish_one(path: &Path, step: &Step) {
    let no_follow = AtFlags::SYMLINK_NOFOLLOW;
    let uid = rustix::fs::Uid::from_raw(step.owner.0);
    let gid = rustix::fs::Gid::from_raw(step.owner.1);
    rustix::fs::chownat(CWD, path, Some(uid), Some(gid), no_follow).unwrap();
    if !matches!(step.what, What::Symlink(_)) {
        rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(step.mode), AtFlags::empty()).unwrap();
    }
    let set = |name: &[u8], value: &[u8]| {
        lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
    };
    for (name, value) in &step.xattrs {
        set(name, value);
    }
    match step.what {
        What::Directory {
            opaque,
            default_acl,
        } => {
            if opaque {
                set(b"trusted.overlay.opaque", b"y");
            }
            if default_acl {
                set(b"system.posix_acl_default", &acl());
            }
            set(b"user.note", b"line\nbreak");
        }
        What::File {
            capability: true, ..
        } => {
            set(b"security.capability", &capability_value());
            set(b"system.posix_acl_access", &acl());
        }
        _ => {}
    }
    let times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec {
            tv_sec: 7,
            tv_nsec: 0,
        },
        last_modification: rustix::fs::Timespec {
            tv_sec: step.mtime.0,
            tv_nsec: step.mtime.1.into(),
        },
    };
    rustix::fs::utimensat(CWD, path, &times, no_follow).unwrap();
}

/// `u::rw-,u:1000:r--,g::r--,m::r--,o::---` in the kernel's form.
pub fn acl() -> Vec<u8> {
    let mut acl = 2u32.to_le_bytes().to_vec();
    let entries = [
        (1u16, 6u16, u32::MAX),
        (2, 4, 1000),
        (4, 4, u32::MAX),
        (16, 4, u32::MAX),
        (32, 0, u32::MAX),
    ];
    for (tag, bits, id) in entries {
        acl.extend(tag.to_le_bytes());
        acl.extend(bits.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

/// `cap_net_bind_service=ep`, revision 2.
pub fn capability_value() -> Vec<u8> {
    let words: [u32; 5] = [0x0200_0001, 1 << 10, 0, 0, 0];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
