//! Where a store lies, and making one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::image::OciLayout;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::folder;
use super::index::{INDEX_NAME, Index};
use super::lock::{Exclusive, LOCK_NAME};
use super::temporary::Temporary;
use crate::error::IoContext;
use crate::json::{self, Limits};
use crate::{Error, ErrorKind, Result};

/// Where the host's store is.
pub const DEFAULT_PATH: &str = "/var/lib/worldshim";

pub(super) const LAYOUT_NAME: &str = "oci-layout";
pub(super) const BLOBS: &str = "blobs";
pub(super) const SHA256: &str = "sha256";
pub(super) const PRIVATE: &str = ".worldshim";
pub(super) const TMP: &str = "tmp";
pub(super) const LEASES: &str = "leases";
/// Of `.worldshim`, kept by the packer of memory.
pub(super) const PAGES: &str = "pages";
/// Of `.worldshim`: folders of living owners, and what may be the only copy of a state.
pub(super) const WORK: &str = "work";
pub(super) const RESCUED: &str = "rescued";
pub(super) const WORKING_SETS: &str = "working-sets";
/// What else of ours lies beside the store.
pub(super) const NEIGHBOURS: [&str; 1] = ["fingerprint.key"];

const LAYOUT_LIMITS: Limits = Limits {
    bytes: 4096,
    depth: 4,
    string: 1024,
};

/// A store. Cheap to clone; may be used by many threads and processes at once.
#[derive(Clone, Debug)]
pub struct Store(Arc<Folders>);

#[derive(Debug)]
struct Folders {
    path: PathBuf,
    root: OwnedFd,
    blobs: OwnedFd,
    private: OwnedFd,
    tmp: OwnedFd,
    leases: OwnedFd,
}

impl Store {
    /// Opens the store at `path`; it is made where there is nothing yet.
    ///
    /// [`ErrorKind::InvalidInput`] where something else lies there,
    /// [`ErrorKind::ForeignWorld`] for a layout of another version,
    /// [`ErrorKind::CorruptWorld`] where the layout is damaged.
    pub fn open(path: &Path) -> Result<Store> {
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))
            .context(|| format!("create the folder above {}", path.display()))?;
        match rustix::fs::mkdir(path, folder::PRIVATE_FOLDER) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => Err(error).context(|| format!("create the store {}", path.display()))?,
        }
        let root = open_root(path)?;
        Self::claim(path, root).map_err(|error| within(path, error))
    }

    /// Opens the store at `path`, which must be there.
    ///
    /// [`ErrorKind::NotFound`] where it is not; other errors as [`Store::open`].
    pub fn open_existing(path: &Path) -> Result<Store> {
        let root = open_root(path)?;
        match has(&root, LAYOUT_NAME).map_err(|error| within(path, error))? {
            true => Self::claim(path, root).map_err(|error| within(path, error)),
            false => Err(no_store(path)),
        }
    }

    /// Opens what is left of a store.
    pub(super) fn open_damaged(path: &Path) -> Result<Store> {
        let root = open_root(path)?;
        let opened = match has(&root, LAYOUT_NAME)
            .and_then(|layout| Ok(layout || has(&root, INDEX_NAME)? || has(&root, BLOBS)?))
        {
            Ok(true) => Self::take(path, root),
            Ok(false) => return Err(no_store(path)),
            Err(error) => Err(error),
        };
        opened.map_err(|error| within(path, error))
    }

    fn claim(path: &Path, root: OwnedFd) -> Result<Store> {
        let fresh = !has(&root, LAYOUT_NAME)?;
        if fresh {
            must_be_free(root.as_fd())?;
        } else {
            check_layout(root.as_fd())?;
        }
        let store = Self::take(path, root)?;
        if fresh {
            store.initialise(&store.lock_exclusive()?)?;
        }
        Ok(store)
    }

    /// Opens the folders, and makes those that are missing.
    fn take(path: &Path, root: OwnedFd) -> Result<Store> {
        let blobs = folder::open_or_make(root.as_fd(), BLOBS)?;
        let private = folder::open_or_make(root.as_fd(), PRIVATE)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&private, LOCK_NAME, flags, folder::PRIVATE_FILE)
            .context(|| "create the lock")?;
        Ok(Store(Arc::new(Folders {
            path: path.to_path_buf(),
            blobs: folder::open_or_make(blobs.as_fd(), SHA256)?,
            tmp: folder::open_or_make(private.as_fd(), TMP)?,
            leases: folder::open_or_make(private.as_fd(), LEASES)?,
            root,
            private,
        })))
    }

    /// Writes an empty index, then the sign that the store is complete.
    fn initialise(&self, lock: &Exclusive) -> Result<()> {
        if folder::stat(self.root(), LAYOUT_NAME)?.is_some() {
            return Ok(()); // Another process was faster.
        }
        if folder::stat(self.root(), INDEX_NAME)?.is_none() {
            // An empty index would hand all blobs to the next sweep.
            if !folder::names(self.blobs())?.is_empty() {
                return Err(Error::new(
                    ErrorKind::CorruptWorld,
                    format!("there are blobs but no {INDEX_NAME}: put it back from a backup"),
                ));
            }
            self.write_index(&Index::default(), lock)?;
        }
        rustix::fs::fchmod(self.root(), folder::PRIVATE_FOLDER)
            .context(|| "make the store private")?;
        let layout = serde_json::json!({"imageLayoutVersion": "1.0.0"});
        let mut bytes = layout.to_string().into_bytes();
        bytes.push(b'\n');
        let blobs = folder::open_folder(self.root(), BLOBS)?;
        folder::sync(&blobs, BLOBS)?;
        let path = self.path().canonicalize().context(|| "find its folder")?;
        std::fs::File::open(path.parent().unwrap_or(Path::new("/")))
            .and_then(|above| above.sync_all())
            .context(|| "sync the folder above")?;
        Temporary::create(self, "layout")?.replace(&bytes, LAYOUT_NAME)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The folder that the packer of memory keeps beside the blobs; made if need be.
    pub fn pages_folder(&self) -> Result<OwnedFd> {
        folder::open_or_make(self.private(), PAGES).map_err(|error| self.blame(error))
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.0.root.as_fd()
    }

    pub(super) fn blobs(&self) -> BorrowedFd<'_> {
        self.0.blobs.as_fd()
    }

    pub(super) fn private(&self) -> BorrowedFd<'_> {
        self.0.private.as_fd()
    }

    pub(super) fn tmp(&self) -> BorrowedFd<'_> {
        self.0.tmp.as_fd()
    }

    pub(super) fn leases(&self) -> BorrowedFd<'_> {
        self.0.leases.as_fd()
    }

    /// Says in an error which store it is about.
    pub(super) fn blame(&self, error: Error) -> Error {
        within(self.path(), error)
    }
}

fn has(root: &OwnedFd, name: &str) -> Result<bool> {
    Ok(folder::stat(root.as_fd(), name)?.is_some())
}

fn no_store(path: &Path) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "there is no store at {}: the first checkpoint or pull makes one",
            path.display()
        ),
    )
}

fn within(path: &Path, error: Error) -> Error {
    error.within(format!("store {}", path.display()))
}

fn open_root(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .context(|| format!("open the store {}", path.display()))
}

/// A new store goes into an empty folder, or one where the making of a store was cut short.
fn must_be_free(root: BorrowedFd) -> Result<()> {
    let ours = |name: &String| {
        [BLOBS, PRIVATE, INDEX_NAME, LAYOUT_NAME].contains(&name.as_str())
            || NEIGHBOURS.contains(&name.as_str())
    };
    match folder::names(root)?.iter().find(|name| !ours(name)) {
        None => Ok(()),
        Some(name) => Err(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "{} lies there and there is no {LAYOUT_NAME}: name a store or an empty folder",
                name.escape_debug()
            ),
        )),
    }
}

/// Whether this version can read the layout.
pub(super) fn check_layout(root: BorrowedFd) -> Result<()> {
    let bytes = folder::read(root, LAYOUT_NAME, LAYOUT_LIMITS.bytes)?.unwrap_or_default();
    let layout: OciLayout =
        json::parse(&bytes, &LAYOUT_LIMITS).map_err(|error| error.within(LAYOUT_NAME))?;
    let version = layout.image_layout_version();
    match version.starts_with("1.") {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::ForeignWorld,
            format!(
                "its layout has version {:?}, this worldshim reads 1.x",
                version.chars().take(20).collect::<String>()
            ),
        )),
    }
}
