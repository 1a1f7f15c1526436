//! Writing a world directory.
//!
//! Invariants: the directory is flat and holds regular files only (containerd's
//! CRI packs nothing else), mode 0700 with files of mode 0600, because memory
//! images are secrets. The first file made is an empty `world.json.unfinished`;
//! at the very end it gets its contents and its name `world.json`. So a
//! directory with `world.json` is a whole world, and one with
//! `world.json.unfinished` belongs to a checkpoint that goes on or was killed.
//! Until [`WorldDirWriter::commit`] succeeds, the writer owns all that is in the
//! directory and removes it when dropped; the directory itself goes too where
//! the writer made it. A lock on the directory keeps a second writer out and
//! ends with the process, so that what a killed writer left can be told from
//! what is being written: [`remove_unfinished`].

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, fchmod, flock, openat, renameat, unlinkat,
};
use rustix::io::Errno;

use super::file_name::FileName;
use super::folder;
use super::manifest::{MANIFEST_NAME, Manifest, PartFile};
use crate::digest::{Hashing, on_all_cores};
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

/// The manifest's name until the world is whole.
pub const UNFINISHED_NAME: &str = "world.json.unfinished";

/// Files that CRIU may leave beside its images: never read at restore, so never listed.
pub const TOLERATED: [&str; 4] = ["dump.log", "restore.log", "stats-dump", "stats-restore"];

/// A world directory being written. May be shared between threads.
pub struct WorldDirWriter {
    path: PathBuf,
    dir: OwnedFd,
    made: bool,
    committed: bool,
}

impl WorldDirWriter {
    /// Makes the directory, or takes an existing one that is empty or holds nothing but what
    /// a killed writer left.
    ///
    /// [`ErrorKind::AlreadyExists`] where there is anything else in it,
    /// [`ErrorKind::WrongState`] where another checkpoint is being written there.
    pub fn create(path: &Path) -> Result<WorldDirWriter> {
        let made = match rustix::fs::mkdir(path, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            error => error
                .map(|()| true)
                .context(|| format!("create the directory {}", path.display()))?,
        };
        let mut writer = WorldDirWriter {
            path: path.to_path_buf(),
            dir: open_locked(path)?,
            made,
            // Nothing in it is ours before it is known to be free.
            committed: true,
        };
        writer.claim()?;
        writer.committed = false;
        fchmod(&writer.dir, Mode::RWXU).context(|| format!("make {} private", path.display()))?;
        folder::create(writer.dir.as_fd(), UNFINISHED_NAME)?;
        Ok(writer)
    }

    fn claim(&self) -> Result<()> {
        match state_of(self.dir.as_fd())? {
            State::Empty => Ok(()),
            State::Unfinished => clear(self.dir.as_fd()),
            State::Taken => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!(
                    "{} is not empty: a checkpoint goes into a new or empty directory; \
                     remove what is there or name another one",
                    self.path.display()
                ),
            )),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open directory; for CRIU's `images_dir_fd` and [`super::follow::ImageHasher`].
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Begins a file that is hashed while it is written.
    pub fn file(&self, name: &str) -> Result<PartWriter> {
        self.begin(FileName::new(name)?, Hashing::default())
    }

    /// Begins a file that must become a known one.
    pub fn copy_of(&self, known: &PartFile) -> Result<PartWriter> {
        self.begin(known.name.clone(), known.hashing())
    }

    fn begin(&self, name: FileName, hashing: Hashing) -> Result<PartWriter> {
        let file = folder::create(self.dir.as_fd(), name.as_str())?;
        Ok(PartWriter {
            name,
            file,
            hashing,
        })
    }

    /// Writes a whole small file.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<PartFile> {
        let mut writer = self.file(name)?;
        writer
            .write_all(bytes)
            .context(|| format!("write {name}"))?;
        Ok(writer.finish())
    }

    /// Hashes a file that something else wrote into the directory.
    pub fn hash(&self, name: &FileName) -> Result<PartFile> {
        let file = folder::open(self.dir.as_fd(), name)?;
        let mut hashing = Hashing::default();
        hashing
            .catch_up(&file, &mut Vec::new())
            .context(|| format!("read {name}"))?;
        Ok(PartFile::hashed(name.clone(), hashing))
    }

    /// Writes `world.json`, after which the directory is a world and no longer ours.
    ///
    /// Fails, and so removes everything, where the directory holds anything but what the
    /// manifest lists. `durable`: everything is on the disk when this returns; needed where
    /// the container ends after the checkpoint.
    pub fn commit(mut self, manifest: &Manifest, durable: bool) -> Result<()> {
        let bytes = manifest.to_bytes()?;
        self.settle(manifest)?;
        if durable {
            let names: Vec<_> = manifest.files().map(|file| &file.name).collect();
            on_all_cores(&names, |name| {
                let file = folder::open(self.dir.as_fd(), name)?;
                file.sync_all().context(|| format!("sync {name}"))
            })?;
        }
        self.write_manifest(&bytes, durable)?;
        self.committed = true;
        if durable {
            self.sync_directories()?;
        }
        Ok(())
    }

    /// Compares the directory with the manifest, makes its files private and removes CRIU's logs.
    fn settle(&self, manifest: &Manifest) -> Result<()> {
        let mut expected: BTreeSet<_> =
            manifest.files().map(|f| (f.name.clone(), f.size)).collect();
        for entry in folder::list(self.dir.as_fd())? {
            let name = entry.file_name()?;
            if name.as_str() == UNFINISHED_NAME {
                continue;
            } else if TOLERATED.contains(&name.as_str()) {
                unlinkat(&self.dir, name.as_str(), AtFlags::empty())
                    .context(|| format!("remove {name}"))?;
            } else if expected.remove(&(name.clone(), entry.stamp.size)) {
                let file = folder::open(self.dir.as_fd(), &name)?;
                fchmod(&file, Mode::RUSR | Mode::WUSR)
                    .context(|| format!("make {name} private"))?;
            } else {
                return Err(unlike(&name, "is not as any part describes it"));
            }
        }
        match expected.first() {
            Some((name, _)) => Err(unlike(name, "is listed by a part and not there")),
            None => Ok(()),
        }
    }

    fn write_manifest(&self, bytes: &[u8], durable: bool) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = openat(&self.dir, UNFINISHED_NAME, flags, Mode::empty())
            .map(File::from)
            .context(|| format!("open {UNFINISHED_NAME}"))?;
        file.write_all(bytes)
            .context(|| format!("write {MANIFEST_NAME}"))?;
        if durable {
            file.sync_all()
                .context(|| format!("sync {MANIFEST_NAME}"))?;
        }
        renameat(&self.dir, UNFINISHED_NAME, &self.dir, MANIFEST_NAME)
            .context(|| format!("name {MANIFEST_NAME}"))
    }

    fn sync_directories(&self) -> Result<()> {
        rustix::fs::fsync(&self.dir).context(|| format!("sync {}", self.path.display()))?;
        let parent = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(parent)
            .and_then(|parent| parent.sync_all())
            .context(|| format!("sync {}", parent.display()))
    }

    /// Removes all that was written; logs what cannot be removed.
    fn discard(&self) {
        let mut cleared = clear(self.dir.as_fd());
        if self.made && cleared.is_ok() {
            cleared = std::fs::remove_dir(&self.path).context(|| "remove the directory");
        }
        if let Err(error) = cleared {
            let path = self.path.display();
            log::warn!("an unfinished checkpoint stays in {path}: {error}");
        }
    }
}

impl Drop for WorldDirWriter {
    fn drop(&mut self) {
        if !self.committed {
            self.discard();
        }
    }
}

/// Removes what a killed writer left in a directory, and only that. Returns whether there was
/// anything; the directory itself stays.
///
/// [`ErrorKind::WrongState`] where the writer still lives.
pub fn remove_unfinished(path: &Path) -> Result<bool> {
    let dir = open_locked(path)?;
    match state_of(dir.as_fd())? {
        State::Unfinished => clear(dir.as_fd()).map(|()| true),
        State::Empty | State::Taken => Ok(false),
    }
}

fn open_locked(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(path, flags, Mode::empty())
        .context(|| format!("open the directory {}", path.display()))?;
    let path = path.display();
    match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(Error::new(
            ErrorKind::WrongState,
            format!("another checkpoint is being written to {path}: wait for it"),
        )),
        result => result.context(|| format!("lock {path}")).map(|()| dir),
    }
}

/// What a directory holds, as far as a writer is concerned.
enum State {
    Empty,
    /// The beginnings of a world.
    Unfinished,
    /// A world, or something that is none of our business.
    Taken,
}

fn state_of(dir: BorrowedFd) -> Result<State> {
    let names = folder::names(dir)?;
    let has = |wanted: &str| names.iter().any(|name| name == wanted.as_bytes());
    Ok(match names.is_empty() {
        true => State::Empty,
        false if has(UNFINISHED_NAME) && !has(MANIFEST_NAME) => State::Unfinished,
        false => State::Taken,
    })
}

/// Removes all files; the sign that they are ours goes last.
fn clear(dir: BorrowedFd) -> Result<()> {
    let mut names = folder::names(dir)?;
    names.sort_by_key(|name| name == UNFINISHED_NAME.as_bytes());
    names.iter().try_for_each(
        |name| match unlinkat(dir, name.as_slice(), AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            result => result.context(|| format!("remove {}", name.escape_ascii())),
        },
    )
}

fn unlike(name: impl std::fmt::Display, what: &str) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("{name} in the world directory {what}"),
    )
}

/// A file of a part, hashed while it is written. The directory's writer removes it on failure.
pub struct PartWriter {
    name: FileName,
    file: File,
    hashing: Hashing,
}

impl PartWriter {
    /// Ends the file and says what it became.
    pub fn finish(self) -> PartFile {
        PartFile::hashed(self.name, self.hashing)
    }
}

impl Write for PartWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hashing.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
