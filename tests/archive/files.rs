//! Tars taken apart and put together again, well or badly.

use std::fs;
use std::io::Read;
use std::path::Path;

use tar::{Archive, Builder, EntryType, Header};

/// A member of a tar.
#[derive(Clone)]
pub struct Member {
    pub path: String,
    pub kind: EntryType,
    pub data: Vec<u8>,
    /// What the header says instead of the data's length.
    pub size: Option<u64>,
}

impl Member {
    pub fn file(path: &str, data: &[u8]) -> Member {
        Member::of(EntryType::Regular, path, data)
    }

    pub fn of(kind: EntryType, path: &str, data: &[u8]) -> Member {
        Member {
            path: path.to_owned(),
            kind,
            data: data.to_vec(),
            size: None,
        }
    }
}

/// All members of a plain tar.
pub fn members(tar: &Path) -> Vec<Member> {
    let mut archive = Archive::new(fs::File::open(tar).expect("open a tar"));
    let entries = archive.entries().expect("a tar");
    entries
        .map(|entry| {
            let mut entry = entry.expect("a member");
            let path = entry.path().expect("a path").to_string_lossy().into_owned();
            let mut data = Vec::new();
            entry.read_to_end(&mut data).expect("its data");
            Member::of(entry.header().entry_type(), &path, &data)
        })
        .collect()
}

/// Writes a tar, whatever its members' names are.
pub fn write(tar: &Path, members: &[Member]) {
    let mut builder = Builder::new(fs::File::create(tar).expect("create a tar"));
    for member in members {
        let mut header = Header::new_gnu();
        header.set_entry_type(member.kind);
        header.set_mode(0o600);
        header.set_size(member.size.unwrap_or(member.data.len() as u64));
        let name = member.path.as_bytes();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        if matches!(member.kind, EntryType::Symlink | EntryType::Link) {
            header.set_link_name("/etc/passwd").expect("a target");
        }
        header.set_cksum();
        builder.append(&header, &member.data[..]).expect("write");
    }
    builder.finish().expect("finish");
}
