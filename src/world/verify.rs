//! Verifying a world directory before anything happens on the host.
//!
//! Nothing is changed, and nothing but regular files inside the directory is
//! opened. In order, each failure ending it: the directory's entries are
//! regular files; `world.json` parses; its format, architecture, CPU features
//! and CRIU version suit this host; the directory holds exactly the listed
//! files in their sizes; their digests match. The digests show damage, not
//! forgery: whoever can write a world can also write its digests.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::directory::TOLERATED;
use super::file_name::FileName;
use super::folder::{self, Entry, Stamp};
use super::host::HostFacts;
use super::manifest::{LIMITS, MANIFEST_NAME, Manifest, PartFile};
use crate::digest::{Digest, on_all_cores};
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

/// What was verified once, for [`verify_again`] in another process of this host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified(BTreeMap<FileName, (Stamp, Digest)>);

impl Verified {
    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A directory just made of a manifest, whose files are taken for what it says.
    pub fn as_made(dir: BorrowedFd, manifest: &Manifest) -> Result<Verified> {
        let stamp = |file: &PartFile| {
            let stamp = Stamp::of_file(&folder::open(dir, &file.name)?)?;
            Ok((file.name.clone(), (stamp, file.sha256)))
        };
        manifest
            .files()
            .map(stamp)
            .collect::<Result<_>>()
            .map(Verified)
    }
}

/// A world whose every byte was checked.
#[derive(Debug)]
pub struct VerifiedWorld {
    /// What it consists of.
    pub manifest: Manifest,
    /// What differs here without being known to do harm: sentences for a log.
    pub warnings: Vec<String>,
    path: PathBuf,
    dir: OwnedFd,
    stamps: BTreeMap<FileName, Stamp>,
}

impl VerifiedWorld {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open directory, for CRIU's `images_dir_fd`.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// What [`verify_again`] needs to know in order not to hash everything a second time.
    pub fn verified(&self) -> Verified {
        let known = self.manifest.files().filter_map(|file| {
            let stamp = self.stamps.get(&file.name)?;
            Some((file.name.clone(), (*stamp, file.sha256)))
        });
        Verified(known.collect())
    }

    /// Opens a file that was verified; fails where it has changed since.
    pub fn open(&self, file: &PartFile) -> Result<File> {
        let opened = folder::open(self.dir.as_fd(), &file.name)?;
        match Stamp::of_file(&opened)? {
            stamp if self.stamps.get(&file.name) == Some(&stamp) => Ok(opened),
            _ => Err(changed(&file.name).within(self.path.display())),
        }
    }

    /// Reads a verified file of at most `limit` bytes into memory.
    pub fn read(&self, file: &PartFile, limit: usize) -> Result<Vec<u8>> {
        if file.size > limit as u64 {
            return Err(corrupt(format!(
                "{} is {} bytes, at most {limit} are allowed",
                file.name, file.size
            )));
        }
        let mut bytes = Vec::with_capacity(file.size as usize);
        self.open(file)?
            .take(file.size)
            .read_to_end(&mut bytes)
            .context(|| format!("read {}", file.name))?;
        Ok(bytes)
    }

    /// Fails where any file was changed or replaced since the verification: to be called just
    /// before something else (CRIU) reads the directory.
    pub fn recheck(&self) -> Result<()> {
        self.manifest
            .files()
            .try_for_each(|file| self.open(file).map(drop))
    }
}

/// Verifies the world directory `path` for `host`; see the module's head for what and in which order.
///
/// [`ErrorKind::NotFound`] where there is no directory, [`ErrorKind::CorruptWorld`] where it is
/// damaged or hostile, [`ErrorKind::ForeignWorld`] where it is whole and does not suit.
pub fn verify(path: &Path, host: &HostFacts) -> Result<VerifiedWorld> {
    verify_again(path, host, &Verified::default())
}

/// Like [`verify`], but without hashing the files that are the same as when `known` was
/// taken. What has changed since is hashed.
pub fn verify_again(path: &Path, host: &HostFacts, known: &Verified) -> Result<VerifiedWorld> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(path, flags, Mode::empty())
        .context(|| format!("open the world directory {}", path.display()))?;
    let checked = check_all(dir.as_fd(), host, known);
    let (manifest, warnings, stamps) =
        checked.map_err(|error| error.within(format!("world {}", path.display())))?;
    Ok(VerifiedWorld {
        manifest,
        warnings,
        path: path.to_path_buf(),
        dir,
        stamps,
    })
}

/// Verifies a world directory as [`verify`] does, but for no host in particular.
pub fn verify_digests(path: &Path) -> Result<Manifest> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(path, flags, Mode::empty())
        .context(|| format!("open the world directory {}", path.display()))?;
    let check = || {
        let entries = folder::list(dir.as_fd())?;
        let manifest = read_manifest(dir.as_fd(), &entries)?;
        let stamps = check_sizes(&manifest, &entries)?;
        check_digests(dir.as_fd(), &manifest, &stamps, &Verified::default())?;
        Ok(manifest)
    };
    check().map_err(|error: Error| error.within(format!("world {}", path.display())))
}

type Checked = (Manifest, Vec<String>, BTreeMap<FileName, Stamp>);

fn check_all(dir: BorrowedFd, host: &HostFacts, known: &Verified) -> Result<Checked> {
    let entries = folder::list(dir)?;
    let manifest = read_manifest(dir, &entries)?;
    let warnings = suits(&manifest.host, host)?;
    let stamps = check_sizes(&manifest, &entries)?;
    check_digests(dir, &manifest, &stamps, known)?;
    Ok((manifest, warnings, stamps))
}

fn read_manifest(dir: BorrowedFd, entries: &[Entry]) -> Result<Manifest> {
    let name = FileName::new(MANIFEST_NAME)?;
    let Some(file) = folder::open_if_there(dir, &name)? else {
        return Err(no_manifest(entries));
    };
    let mut bytes = Vec::new();
    file.take(LIMITS.bytes as u64 + 1)
        .read_to_end(&mut bytes)
        .context(|| format!("read {MANIFEST_NAME}"))?;
    Manifest::parse(&bytes)
}

fn no_manifest(entries: &[Entry]) -> Error {
    let has = |name: &[u8]| entries.iter().any(|entry| entry.name == name);
    if has(b"descriptors.json") && has(b"inventory.img") {
        return Error::new(
            ErrorKind::ForeignWorld,
            "this is a checkpoint by another runtime (CRIU images and descriptors.json, \
             no world.json): restore it with the runtime that made it",
        );
    }
    corrupt(format!(
        "there is no {MANIFEST_NAME}: the checkpoint was never finished, take another one"
    ))
}

/// Whether a world made on `world` can run on `host`. Returns warnings.
///
/// [`ErrorKind::ForeignWorld`] where it cannot.
pub fn suits(world: &HostFacts, host: &HostFacts) -> Result<Vec<String>> {
    if world.arch != host.arch {
        return Err(foreign(format!(
            "made on {:?}, this host is {}: restore it on a host of its own kind",
            world.arch, host.arch
        )));
    }
    let missing = host.missing_cpu_features(world);
    if !missing.is_empty() {
        let shown: Vec<_> = missing
            .iter()
            .take(20)
            .map(|f| f.escape_debug().to_string())
            .collect();
        return Err(foreign(format!(
            "its processes may use CPU features that this host lacks ({}): restore it on a host \
             with the features of {:?}",
            shown.join(", "),
            world.cpu_model
        )));
    }
    let mut warnings = Vec::new();
    warnings.extend(suits_criu(world, host)?);
    if world.kernel != host.kernel {
        warnings.push(format!(
            "made on kernel {:?}, this host runs {:?}",
            world.kernel, host.kernel
        ));
    }
    if world.cgroup != host.cgroup {
        warnings.push(format!(
            "made with cgroup {:?}, this host has {:?}",
            world.cgroup, host.cgroup
        ));
    }
    Ok(warnings)
}

/// CRIU reads images of older versions; those of newer ones it may not.
fn suits_criu(world: &HostFacts, host: &HostFacts) -> Result<Option<String>> {
    let (Some(made), Some(here)) = (&world.criu, &host.criu) else {
        return Ok(None);
    };
    let (Some(made_by), Some(have)) = (criu_version(made), criu_version(here)) else {
        return Ok(Some(format!(
            "cannot compare CRIU versions {made:?} and {here:?}"
        )));
    };
    if made_by[..2] > have[..2] {
        return Err(foreign(format!(
            "dumped by CRIU {}.{}.{}, this host has the older {here}: install CRIU {}.{} or newer",
            made_by[0], made_by[1], made_by[2], made_by[0], made_by[1]
        )));
    }
    Ok((made_by > have).then(|| format!("dumped by CRIU {made}, this host has the older {here}")))
}

/// `4.1.1` or `4.2`: three numbers.
fn criu_version(text: &str) -> Option<[u32; 3]> {
    let mut version = [0; 3];
    let mut numbers = text.split('.');
    for (index, slot) in version.iter_mut().enumerate() {
        match numbers.next() {
            Some(number) => *slot = number.parse().ok()?,
            None if index >= 2 => {}
            None => return None,
        }
    }
    numbers.next().is_none().then_some(version)
}

/// The directory holds exactly the listed files in their sizes.
fn check_sizes(manifest: &Manifest, entries: &[Entry]) -> Result<BTreeMap<FileName, Stamp>> {
    let mut found = BTreeMap::new();
    for entry in entries {
        found.insert(entry.name.as_slice(), entry.stamp);
    }
    found.remove(MANIFEST_NAME.as_bytes());
    for name in TOLERATED {
        found.remove(name.as_bytes());
    }
    let mut stamps = BTreeMap::new();
    for file in manifest.files() {
        let name = &file.name;
        let stamp = found.remove(name.as_str().as_bytes()).ok_or_else(|| {
            corrupt(format!(
                "{name} is missing: fetch the world again or take another checkpoint"
            ))
        })?;
        if stamp.size != file.size {
            return Err(corrupt(format!(
                "{name} is {} bytes and should be {}: fetch the world again or take another checkpoint",
                stamp.size, file.size
            )));
        }
        stamps.insert(name.clone(), stamp);
    }
    match found.keys().next() {
        None => Ok(stamps),
        Some(name) => Err(corrupt(format!(
            "{} does not belong to it: CRIU could take it for an image; remove it if you know it",
            name.escape_ascii()
        ))),
    }
}

fn check_digests(
    dir: BorrowedFd,
    manifest: &Manifest,
    stamps: &BTreeMap<FileName, Stamp>,
    known: &Verified,
) -> Result<()> {
    let is_known = |file: &PartFile| {
        let now = stamps.get(&file.name).map(|stamp| (*stamp, file.sha256));
        now.as_ref() == known.0.get(&file.name) && now.is_some()
    };
    let mut files: Vec<_> = manifest.files().filter(|file| !is_known(file)).collect();
    // The big ones first, so that the cores end together.
    files.sort_by_key(|file| std::cmp::Reverse(file.size));
    on_all_cores(&files, |file| {
        let opened = folder::open(dir, &file.name)?;
        let mut hashing = file.hashing();
        hashing.complete(&opened, &file.name)?;
        let (sha256, _) = hashing.finish();
        if stamps.get(&file.name) != Some(&Stamp::of_file(&opened)?) {
            return Err(changed(&file.name));
        }
        match sha256 == file.sha256 {
            true => Ok(()),
            false => Err(corrupt(format!(
                "{} is damaged: its digest is {sha256} and should be {}; fetch the world again \
                 or take another checkpoint",
                file.name, file.sha256
            ))),
        }
    })?;
    Ok(())
}

fn changed(name: &FileName) -> Error {
    corrupt(format!("{name} was changed while the world was in use"))
}

fn corrupt(message: String) -> Error {
    Error::new(ErrorKind::CorruptWorld, message)
}

fn foreign(message: String) -> Error {
    Error::new(ErrorKind::ForeignWorld, message)
}
