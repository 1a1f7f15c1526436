//! The images that a restore works from: the world's own, or a directory of
//! links to them in which `files.img` is changed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::restore::{RestoreRequest, TcpPolicy};
use crate::criu::images::{self, Kind};
use crate::criu::{tcp_image, timer_image};
use crate::error::{IoContext, Result};

/// A directory of images; what was made for it goes away with it.
pub(super) enum RestoredImages<'a> {
    Whole(&'a Path),
    Changed(PathBuf),
}

impl<'a> RestoredImages<'a> {
    /// Checks the images' head and tree, closes connections as wanted, and sets
    /// timers that CRIU would not.
    pub(super) fn prepare(request: &RestoreRequest<'a>) -> Result<Self> {
        let whole = request.images_dir;
        images::processes(whole)?;
        let Some(files) = images::read(whole, Kind::Files)? else {
            return Ok(RestoredImages::Whole(whole));
        };
        let closed = match request.tcp {
            TcpPolicy::Close => tcp_image::close_outside(&files)?,
            TcpPolicy::Established => None,
        };
        let set = timer_image::set_expired(closed.as_deref().unwrap_or(&files))?;
        let Some(files) = set.or(closed) else {
            return Ok(RestoredImages::Whole(whole));
        };
        let directory = request.work_dir.join("images");
        let _ = fs::remove_dir_all(&directory); // Of a restore that was killed.
        fs::create_dir(&directory).context(|| format!("make {}", directory.display()))?;
        let changed = RestoredImages::Changed(directory);
        link_all(whole, changed.directory())?;
        let path = changed.directory().join(Kind::Files.file_name());
        fs::write(&path, files).context(|| format!("write {}", path.display()))?;
        Ok(changed)
    }

    pub(super) fn directory(&self) -> &Path {
        match self {
            RestoredImages::Whole(directory) => directory,
            RestoredImages::Changed(directory) => directory,
        }
    }
}

impl Drop for RestoredImages<'_> {
    fn drop(&mut self) {
        if let RestoredImages::Changed(directory) = self {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

/// Links to all files of `from` but the one that is changed.
///
/// The links are relative: CRIU follows some of them when the container's root
/// is its own, and only from the directory's descriptor is there a way out of it.
fn link_all(from: &Path, to: &Path) -> Result<()> {
    let canonical =
        |path: &Path| fs::canonicalize(path).context(|| format!("find {}", path.display()));
    let (from, to) = (canonical(from)?, canonical(to)?);
    let up: PathBuf = to.components().skip(1).map(|_| "..").collect();
    let there = up.join(from.strip_prefix("/").unwrap_or(&from));
    for entry in fs::read_dir(&from).context(|| format!("list {}", from.display()))? {
        let name = entry.context(|| "list images")?.file_name();
        if name != Kind::Files.file_name() {
            symlink(there.join(&name), to.join(&name))
                .context(|| format!("link {}", name.display()))?;
        }
    }
    Ok(())
}
