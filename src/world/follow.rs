//! Hashes CRIU's images, the big ones while CRIU is still writing them.
//!
//! CRIU writes the memory of the processes into `pages-1.img`, `pages-2.img`
//! and so on, only ever appending. A thread reads what is there, keeping up
//! with CRIU on another core, so that little is left to hash when the dump is
//! over. What it did not reach is hashed on all cores at the end.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::file_name::FileName;
use super::folder;
use super::manifest::PartFile;
use crate::digest::{Hashing, on_all_cores};
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

/// How long the follower sleeps when CRIU has written nothing new.
const POLL: Duration = Duration::from_millis(1);

/// Hashes the images of one dump. Dropped without [`ImageHasher::finish`], it stops.
pub struct ImageHasher {
    dir: OwnedFd,
    over: Arc<AtomicBool>,
    follower: Option<JoinHandle<Result<Followed>>>,
}

/// What the follower has hashed, by file name.
type Followed = BTreeMap<FileName, Hashing>;

impl ImageHasher {
    /// Starts to follow the dump that CRIU is about to write into `dir`.
    pub fn start(dir: BorrowedFd) -> Result<ImageHasher> {
        let dir = dir
            .try_clone_to_owned()
            .context(|| "duplicate a descriptor")?;
        let followed = dir.try_clone().context(|| "duplicate a descriptor")?;
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        let follower = std::thread::Builder::new()
            .name("hash-images".into())
            .spawn(move || follow(followed.as_fd(), &told))
            .context(|| "start a thread")?;
        Ok(ImageHasher {
            dir,
            over,
            follower: Some(follower),
        })
    }

    /// To be called when CRIU has ended: hashes the rest and lists all `*.img` files.
    pub fn finish(mut self) -> Result<Vec<PartFile>> {
        let followed = self.stop()?;
        let mut names = image_names(self.dir.as_fd())?;
        // The big ones first, so that the cores end together.
        names.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
        let mut files = on_all_cores(&names, |(name, _)| {
            let begun = followed.get(name).cloned().unwrap_or_else(|| fresh(name));
            hash_rest(self.dir.as_fd(), name, begun)
        })?;
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    fn stop(&mut self) -> Result<Followed> {
        self.over.store(true, Ordering::Release);
        match self.follower.take().map(JoinHandle::join) {
            None => Ok(Followed::new()),
            Some(Ok(followed)) => followed,
            Some(Err(_)) => Err(Error::new(
                ErrorKind::Internal,
                "the thread that hashes CRIU's images panicked",
            )),
        }
    }
}

impl Drop for ImageHasher {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// Follows one pages file after the other until told that the dump is over.
fn follow(dir: BorrowedFd, over: &AtomicBool) -> Result<Followed> {
    let mut followed = Followed::new();
    let mut current: Option<(FileName, File, Hashing)> = None;
    let mut buffer = Vec::new();
    let mut id = 1u32;
    loop {
        let ending = over.load(Ordering::Acquire);
        let mut news = 0;
        if let Some((name, file, hashing)) = &mut current {
            news = hashing
                .catch_up(file, &mut buffer)
                .context(|| format!("read {name}"))?;
        }
        if ending {
            break;
        }
        if news == 0 {
            let name = FileName::new(format!("pages-{id}.img"))?;
            match folder::open_if_there(dir, &name)? {
                Some(file) => {
                    id += 1;
                    let next = (name, file, Hashing::in_pieces());
                    if let Some((name, _, hashing)) = current.replace(next) {
                        followed.insert(name, hashing);
                    }
                }
                None => std::thread::sleep(POLL),
            }
        }
    }
    if let Some((name, _, hashing)) = current {
        followed.insert(name, hashing);
    }
    Ok(followed)
}

/// Hashes what the follower has not seen of a file that nobody writes any more.
fn hash_rest(dir: BorrowedFd, name: &FileName, mut hashing: Hashing) -> Result<PartFile> {
    let file = folder::open(dir, name)?;
    hashing.complete(&file, name)?;
    let size = file.metadata().context(|| format!("look at {name}"))?.len();
    if hashing.size() != size {
        return Err(Error::new(
            ErrorKind::Internal,
            format!(
                "{name} is {size} bytes after {} were read: CRIU did not only append",
                hashing.size()
            ),
        ));
    }
    Ok(PartFile::hashed(name.clone(), hashing))
}

/// Memory is hashed in pieces.
fn fresh(name: &FileName) -> Hashing {
    match crate::criu::pagemap::pages_id(name.as_str()) {
        Some(_) => Hashing::in_pieces(),
        None => Hashing::default(),
    }
}

/// CRIU's images in the directory with their sizes.
fn image_names(dir: BorrowedFd) -> Result<Vec<(FileName, u64)>> {
    let entries = folder::list(dir)?;
    entries
        .into_iter()
        .filter(|entry| entry.name.ends_with(b".img"))
        .map(|entry| Ok((entry.file_name()?, entry.stamp.size)))
        .collect()
}
