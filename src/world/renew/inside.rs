//! Files in a container's root, which its processes may have filled with traps.
//!
//! Every path is resolved by the kernel as if the root were `/` (openat2 with IN_ROOT), and
//! no magic link is followed: whatever the names and links are, what is opened is a file that
//! the container reaches. Only regular files are written.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat2, unlinkat,
};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, IoContext, Result};

const INSIDE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
/// For all to read, for none to write.
const READABLE: Mode = Mode::from_raw_mode(0o444);
const FOLDER: Mode = Mode::from_raw_mode(0o755);

/// Why a file cannot be written.
#[derive(Debug)]
pub(super) enum Fault {
    /// It is on a filesystem that is read-only.
    ReadOnly,
    Other(Error),
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        match fault {
            Fault::Other(error) => error,
            Fault::ReadOnly => Error::new(
                ErrorKind::Obstacle,
                "it is on a read-only filesystem: give the container a writable /run",
            ),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Other(error)
    }
}

/// A container's root.
pub(super) struct Root(OwnedFd);

impl Root {
    pub fn open(path: &Path) -> Result<Root> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, flags, Mode::empty());
        opened
            .map(Root)
            .context(|| format!("open {}", path.display()))
    }

    fn look(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = match flags.contains(OFlags::PATH) {
            true => flags | OFlags::CLOEXEC,
            false => flags | OFlags::CLOEXEC | OFlags::NONBLOCK,
        };
        openat2(&self.0, path, flags, Mode::empty(), INSIDE)
    }

    /// Whether a folder lies on the same filesystem as the root.
    pub fn is_on_root(&self, folder: &str) -> bool {
        let device = |path: &str| {
            let fd = self.look(path, OFlags::PATH).ok()?;
            fstat(fd).ok().map(|stat| stat.st_dev)
        };
        device("/").is_some() && device("/") == device(folder)
    }

    /// Changes a regular file of at most `most` bytes in place, where there is one and `edit`
    /// gives something.
    pub fn rewrite(
        &self,
        path: &str,
        most: u64,
        edit: impl Fn(&[u8]) -> Option<Vec<u8>>,
    ) -> Result<()> {
        self.change(path, most, OFlags::empty(), edit)
    }

    /// The same, unless the last name is a symbolic link.
    pub fn rewrite_if_no_link(
        &self,
        path: &str,
        most: u64,
        edit: impl Fn(&[u8]) -> Option<Vec<u8>>,
    ) -> Result<()> {
        self.change(path, most, OFlags::NOFOLLOW, edit)
    }

    fn change(
        &self,
        path: &str,
        most: u64,
        flags: OFlags,
        edit: impl Fn(&[u8]) -> Option<Vec<u8>>,
    ) -> Result<()> {
        let what = || format!("renew /{path} in the container");
        // Looked at first: to open some things does something.
        let seen = match self.look(path, flags | OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Ok(()),
            seen => seen.context(what)?,
        };
        let stat = fstat(&seen).context(what)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
            || stat.st_size as u64 > most
        {
            return Ok(());
        }
        let mut old = Vec::new();
        let file = self.look(path, flags | OFlags::RDONLY).context(what)?;
        File::from(file)
            .take(most)
            .read_to_end(&mut old)
            .context(what)?;
        let Some(new) = edit(&old).filter(|new| *new != old) else {
            return Ok(());
        };
        let file = match self.look(path, flags | OFlags::WRONLY) {
            Err(Errno::ROFS) => {
                let text = format!("{}: the rootfs is read-only", what());
                return Err(Error::new(ErrorKind::Obstacle, text));
            }
            file => file.context(what)?,
        };
        let mut file = File::from(file);
        if !file.metadata().context(what)?.is_file() {
            return Ok(());
        }
        file.set_len(0)
            .and_then(|()| file.write_all(&new))
            .context(what)
    }

    /// Writes a file that all can read, in folders that are made where they are missing. One
    /// that is there is written in place, so that whoever watches it sees the change.
    pub fn put(
        &self,
        folders: &[&str],
        name: &str,
        bytes: &[u8],
    ) -> std::result::Result<(), Fault> {
        let mut at = self.look("/", OFlags::RDONLY | OFlags::DIRECTORY);
        let mut path = String::new();
        for folder in folders {
            let outer = fault(at, || format!("open /{path}"))?;
            path = format!("{path}/{folder}");
            if let Err(error) = mkdirat(&outer, *folder, FOLDER)
                && error != Errno::EXIST
            {
                return fault(Err(error), || format!("make {path}"));
            }
            at = self.look(&path, OFlags::RDONLY | OFlags::DIRECTORY);
        }
        let folder = fault(at, || format!("open {path}"))?;
        let what = || format!("write {path}/{name}");
        let mut file = match reusable(&folder, name) {
            Some(file) => file,
            None => {
                match unlinkat(&folder, name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    removed => fault(removed, what)?,
                }
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let made = rustix::fs::openat(&folder, name, flags, READABLE);
                File::from(fault(made, what)?)
            }
        };
        let written = file
            .set_len(0)
            .and_then(|()| file.write_all(bytes))
            .context(what);
        written?;
        rustix::fs::fchmod(file.as_fd(), READABLE).context(what)?;
        Ok(())
    }
}

fn fault<T>(
    result: rustix::io::Result<T>,
    what: impl FnOnce() -> String,
) -> std::result::Result<T, Fault> {
    match result {
        Err(Errno::ROFS) => Err(Fault::ReadOnly),
        result => Ok(result.context(what)?),
    }
}

/// What is there already, if it is a regular file with no other name.
fn reusable(folder: &OwnedFd, name: &str) -> Option<File> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let is_plain =
        FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1;
    if !is_plain {
        return None;
    }
    let file = File::from(rustix::fs::openat(folder, name, flags, Mode::empty()).ok()?);
    file.metadata().ok()?.is_file().then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("root");
        std::fs::create_dir(&inside).unwrap();
        let root = Root::open(&inside).unwrap();
        (folder, root)
    }

    #[test]
    fn a_file_is_made_and_renewed_in_place() {
        use std::os::unix::fs::MetadataExt;
        let (folder, root) = root();
        let path = folder.path().join("root/run/worldshim/generation");
        root.put(&["run", "worldshim"], "generation", b"first")
            .unwrap();
        let made = std::fs::metadata(&path).unwrap();
        assert_eq!(made.mode() & 0o7777, 0o444);
        root.put(&["run", "worldshim"], "generation", b"next")
            .unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"next");
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), made.ino());
    }

    #[test]
    fn links_lead_nowhere_else() {
        use std::os::unix::fs::symlink;
        let (folder, root) = root();
        let outside = folder.path().join("outside");
        std::fs::write(&outside, "outside").unwrap();
        let inside = folder.path().join("root");
        std::fs::create_dir_all(inside.join("run/worldshim")).unwrap();
        symlink(&outside, inside.join("run/worldshim/generation")).unwrap();
        std::fs::create_dir(inside.join("etc")).unwrap();
        symlink("../../outside", inside.join("etc/hostname")).unwrap();
        root.put(&["run", "worldshim"], "generation", b"new")
            .unwrap();
        root.rewrite("etc/hostname", 100, |_| Some(b"new".to_vec()))
            .unwrap();
        assert_eq!(std::fs::read(&outside).unwrap(), b"outside");
        assert_eq!(
            std::fs::read(inside.join("run/worldshim/generation")).unwrap(),
            b"new"
        );
    }

    #[test]
    fn what_is_no_file_is_let_be_or_replaced() {
        let (folder, root) = root();
        let inside = folder.path().join("root");
        std::fs::create_dir_all(inside.join("etc/hosts")).unwrap();
        root.rewrite("etc/hosts", 100, |_| Some(b"new".to_vec()))
            .unwrap();
        root.rewrite("etc/none", 100, |_| Some(b"new".to_vec()))
            .unwrap();
        assert!(!inside.join("etc/none").exists());
        std::fs::create_dir_all(inside.join("run")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            inside.join("run/generation"),
            FileType::Fifo,
            Mode::RWXU,
            0,
        )
        .unwrap();
        root.put(&["run"], "generation", b"new").unwrap();
        assert_eq!(
            std::fs::read(inside.join("run/generation")).unwrap(),
            b"new"
        );
    }
}
