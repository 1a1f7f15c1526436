//! The checkpoint archive: one tar that podman's, CRI's and checkpointctl's readers know.
//!
//! ```text
//! world.json            first, so that a reader knows what is to come
//! lineage.json          the world that it follows
//! config.dump, spec.dump, status.dump    about the container
//! deleted.files         where files of the image are gone
//! spec.json, env.json   the world's own
//! stats-dump            as much as the world knows
//! checkpoint/           CRIU's images
//! rootfs-diff.tar       rootfs.tar, byte for byte
//! ```
//!
//! All are the world's files byte for byte, but for the pagemaps: see
//! [`crate::criu::pagemap_counts`].

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::describe;
use super::lineage::{LINEAGE, Lineage};
use super::output::Output;
use super::recognise::{CHECKPOINT, CONFIG_DUMP, SPEC_DUMP};
use super::statistics::stats_dump;
use crate::criu::pagemap::Space;
use crate::criu::pagemap_counts::with_old_counts;
use crate::digest::Hashing;
use crate::error::IoContext;
use crate::world::manifest::{MANIFEST_NAME, Manifest, PartFile, PartKind};
use crate::{Error, ErrorKind, Result};

/// What CRI and podman call the container's own files.
pub(super) const ROOTFS_DIFF: &str = "rootfs-diff.tar";
/// The largest pagemap that is told in the old way too, in bytes.
pub(super) const MOST_PAGEMAP: u64 = 256 << 20;
const STATUS_DUMP: &str = "status.dump";
const DELETED_FILES: &str = "deleted.files";
const STATS_DUMP: &str = "stats-dump";

/// Writes the world directory `world`, each file of which must be what `manifest` says.
pub(super) fn write(
    out: &mut Output,
    world: &Path,
    manifest: &Manifest,
    lineage: Option<Lineage>,
    progress: &dyn Fn(u64),
) -> Result<()> {
    let mut writing = Writing {
        out,
        world,
        progress,
    };
    let spec = manifest.need_part(PartKind::Spec)?;
    let env = manifest.need_part(PartKind::Env)?;
    let spec_json = std::fs::read(world.join(spec.files[0].name.as_str()))
        .context(|| format!("read {}", spec.files[0].name))?;
    let out = &mut writing.out;
    out.bytes(MANIFEST_NAME, &manifest.to_bytes()?)?;
    if let Some(lineage) = lineage {
        out.bytes(LINEAGE, &lineage.to_bytes()?)?;
    }
    out.bytes(CONFIG_DUMP, &describe::config_dump(manifest)?)?;
    out.bytes(SPEC_DUMP, &describe::spec_dump(manifest, &spec_json)?)?;
    out.bytes(STATUS_DUMP, &describe::status_dump(manifest)?)?;
    out.bytes(STATS_DUMP, &stats_dump(manifest))?;
    let rootfs = manifest.part(PartKind::Rootfs).map(|part| &part.files[0]);
    if let Some(rootfs) = rootfs
        && let Some(deleted) = describe::deleted_files(&writing.open(rootfs)?)?
    {
        writing.out.bytes(DELETED_FILES, &deleted)?;
    }
    writing.file(&spec.files[0], spec.files[0].name.as_str())?;
    writing.file(&env.files[0], env.files[0].name.as_str())?;
    writing.out.folder(CHECKPOINT)?;
    for image in &manifest.need_part(PartKind::Processes)?.files {
        let path = format!("{CHECKPOINT}/{}", image.name);
        match Space::of_file(image.name.as_str()) {
            Some(_) => writing.pagemap(image, &path)?,
            None => writing.file(image, &path)?,
        }
    }
    match rootfs {
        Some(rootfs) => writing.file(rootfs, ROOTFS_DIFF),
        None => Ok(()),
    }
}

struct Writing<'a> {
    out: &'a mut Output,
    world: &'a Path,
    progress: &'a dyn Fn(u64),
}

impl Writing<'_> {
    fn open(&self, file: &PartFile) -> Result<File> {
        let path = self.world.join(file.name.as_str());
        File::open(&path).context(|| format!("open {}", path.display()))
    }

    /// With the counts that checkpointctl looks at.
    fn pagemap(&mut self, file: &PartFile, path: &str) -> Result<()> {
        if file.size > MOST_PAGEMAP {
            return self.file(file, path);
        }
        let mut bytes = Vec::new();
        (self.open(file)?.take(file.size).read_to_end(&mut bytes))
            .context(|| format!("read {}", file.name))?;
        if !file.is_bytes(&bytes) {
            return Err(changed(file));
        }
        (self.progress)(file.size);
        let told = with_old_counts(&bytes);
        self.out.bytes(path, told.as_deref().unwrap_or(&bytes))
    }

    fn file(&mut self, file: &PartFile, path: &str) -> Result<()> {
        let mut data = Hashed {
            data: self.open(file)?,
            hashing: file.hashing(),
            progress: self.progress,
        };
        self.out.file(path, file.size, &mut data)?;
        match file.is(data.hashing) {
            true => Ok(()),
            false => Err(changed(file)),
        }
    }
}

fn changed(file: &PartFile) -> Error {
    Error::new(
        ErrorKind::CorruptWorld,
        format!("{} is not what {MANIFEST_NAME} says", file.name),
    )
}

/// Hashes what is read through it.
pub(super) struct Hashed<'a, R> {
    pub data: R,
    pub hashing: Hashing,
    pub progress: &'a dyn Fn(u64),
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.data.read(buffer)?;
        self.hashing.update(&buffer[..count]);
        (self.progress)(count as u64);
        Ok(count)
    }
}
