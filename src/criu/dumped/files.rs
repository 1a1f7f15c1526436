//! All files that the processes of a dump have open, by CRIU's ids.

use std::collections::HashMap;
use std::sync::Arc;

use super::file::{self, File};
use super::image::{Images, damaged, decode};
use super::message::{FileEntry, MemfdInode};
use crate::Result;

const NAME: &str = "files.img";
const MAGIC: u32 = 0x5630_3138;
const MEMFD_NAME: &str = "memfd.img";
const MEMFD_MAGIC: u32 = 0x4845_3499;

/// The table of files.
#[derive(Default)]
pub(super) struct Files {
    files: HashMap<u32, Arc<File>>,
    /// By the files' ids.
    memfds: HashMap<u32, MemfdInode>,
}

impl Files {
    pub fn read(images: &Images) -> Result<Files> {
        let mut inodes: HashMap<u64, MemfdInode> = HashMap::new();
        for message in images.messages(MEMFD_NAME, MEMFD_MAGIC)? {
            let inode: MemfdInode = decode(MEMFD_NAME, message)?;
            inodes.insert(inode.inode, inode);
        }
        let mut entries: HashMap<u32, FileEntry> = HashMap::new();
        for message in images.messages(NAME, MAGIC)? {
            let entry: FileEntry = decode(NAME, message)?;
            if entries.insert(entry.id, entry).is_some() {
                return Err(damaged(NAME, "has an id twice"));
            }
        }
        let mut files = Files::default();
        for (id, entry) in &entries {
            let memfd = entry.memfd.as_ref();
            let memfd = memfd.and_then(|memfd| inodes.get(&memfd.inode.into()));
            let path = |id: u32| Some(entries.get(&id)?.regular.as_ref()?.path.as_slice());
            files
                .files
                .insert(*id, Arc::new(file::of(entry, memfd, path)));
            if let Some(memfd) = memfd {
                files.memfds.insert(*id, memfd.clone());
            }
        }
        Ok(files)
    }

    pub fn get(&self, id: u32) -> Option<&Arc<File>> {
        self.files.get(&id)
    }

    pub fn memfd(&self, id: u32) -> Option<&MemfdInode> {
        self.memfds.get(&id)
    }
}
