//! What is in a directory, read independently of the code under test.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// One name in a directory tree.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct Node {
    pub what: What,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first name (in order) of the same inode.
    pub first_name: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq, Clone)]
pub enum What {
    Directory,
    File {
        /// The SHA-256 of what is in it.
        content: String,
        size: u64,
        /// Where data begins and ends, of files of a block and more.
        stretches: Vec<(u64, u64)>,
    },
    Symlink(Vec<u8>),
    Device {
        block: bool,
        number: u64,
    },
    Fifo,
    Socket,
}

/// Of files this large only the size and the stretches of data are kept.
const LARGE: u64 = 16 << 20;

pub type Snapshot = BTreeMap<Vec<u8>, Node>;

/// Everything in `root`, by path; the root itself is "".
pub fn of(root: &Path) -> Snapshot {
    let mut nodes = Snapshot::new();
    let mut first_names = BTreeMap::new();
    visit(root, Vec::new(), &mut nodes, &mut first_names);
    nodes
}

fn visit(
    root: &Path,
    path: Vec<u8>,
    nodes: &mut Snapshot,
    first_names: &mut BTreeMap<u64, Vec<u8>>,
) {
    let full = root.join(OsStr::from_bytes(&path));
    let stat = std::fs::symlink_metadata(&full).unwrap();
    let kind = stat.file_type();
    let whiteout = kind.is_char_device() && stat.rdev() == 0;
    let what = if kind.is_dir() {
        What::Directory
    } else if kind.is_file() {
        What::File {
            size: stat.len(),
            content: match stat.len() {
                0..LARGE => sha256(&std::fs::read(&full).unwrap()),
                _ => String::new(),
            },
            stretches: stretches(&full, stat.len()),
        }
    } else if kind.is_symlink() {
        What::Symlink(
            std::fs::read_link(&full)
                .unwrap()
                .into_os_string()
                .into_vec(),
        )
    } else if kind.is_fifo() {
        What::Fifo
    } else if kind.is_socket() {
        What::Socket
    } else {
        What::Device {
            block: kind.is_block_device(),
            number: stat.rdev(),
        }
    };
    let first = first_names
        .entry(stat.ino())
        .or_insert_with(|| path.clone());
    let node = Node {
        what,
        first_name: match whiteout {
            // Whiteouts share an inode, which says nothing.
            true => path.clone(),
            false => first.clone(),
        },
        mode: if whiteout { 0 } else { stat.mode() & 0o7777 },
        owner: if whiteout {
            (0, 0)
        } else {
            (stat.uid(), stat.gid())
        },
        mtime: if whiteout {
            (0, 0)
        } else {
            (stat.mtime(), stat.mtime_nsec())
        },
        xattrs: xattrs(&full),
    };
    nodes.insert(path.clone(), node);
    if kind.is_dir() {
        let mut names: Vec<_> = std::fs::read_dir(&full)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_vec())
            .collect();
        names.sort();
        for name in names {
            let mut inner = path.clone();
            if !inner.is_empty() {
                inner.push(b'/');
            }
            inner.extend(name);
            visit(root, inner, nodes, first_names);
        }
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0u8; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let mut found = BTreeMap::new();
    for name in names[..length].split(|&b| b == 0).filter(|n| !n.is_empty()) {
        let mut value = vec![0u8; 64 << 10];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        found.insert(name.to_vec(), value[..length].to_vec());
    }
    found
}

fn stretches(path: &Path, size: u64) -> Vec<(u64, u64)> {
    use rustix::fs::{SeekFrom, seek};
    let file = std::fs::File::open(path).unwrap();
    let mut found = Vec::new();
    let mut at = 0;
    while size >= 4096 && at < size {
        let Ok(start) = seek(&file, SeekFrom::Data(at)) else {
            break;
        };
        at = seek(&file, SeekFrom::Hole(start)).unwrap();
        found.push((start, at));
    }
    found
}

pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex(&sha2::Sha256::digest(bytes))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
