//! A world directory out of a tar, by what `world.json` lists and nothing else.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::checkpoint::{MOST_PAGEMAP, ROOTFS_DIFF};
use super::lineage::{self, LINEAGE, Lineage};
use super::recognise::CHECKPOINT;
use super::tar_reader::{Member, MemberKind, TarReader, corrupt, unreadable};
use crate::criu::pagemap::Space;
use crate::criu::pagemap_counts::without_old_counts;
use crate::error::IoContext;
use crate::world::directory::{TOLERATED, WorldDirWriter};
use crate::world::manifest::{MANIFEST_NAME, Manifest, PartFile, PartKind};
use crate::{Error, ErrorKind, Result};

/// Makes the directory `path`. What is missing, damaged, or no plain file makes one error,
/// and nothing of the directory stays. Returns what the archive tells of a parent.
pub(super) fn extract(
    tar: &mut TarReader,
    manifest: &Manifest,
    path: &Path,
    progress: &dyn Fn(u64),
) -> Result<Option<Lineage>> {
    must_have_room(manifest, path.parent().unwrap_or(path))?;
    tar.allow(manifest.size());
    let mut lineage = None;
    let out = WorldDirWriter::create(path)?;
    let mut missing: BTreeMap<&str, &PartFile> = manifest
        .files()
        .map(|file| (file.name.as_str(), file))
        .collect();
    while let Some(member) = tar.next()? {
        member.must_be_plain().map_err(|error| tar.locate(error))?;
        if member.kind == MemberKind::Folder {
            continue;
        }
        if member.path == LINEAGE {
            let bytes = tar.read(&member, lineage::LIMITS.bytes)?;
            lineage = Some(Lineage::parse(&bytes).map_err(|error| tar.locate(error))?);
            continue;
        }
        let name = name_in_world(&member.path, manifest);
        let taken = match missing.remove(name) {
            Some(file) if Space::of_file(name).is_some() && member.size <= MOST_PAGEMAP => {
                pagemap(tar, &member, file, &out)
            }
            Some(file) => take(tar, &member, file, &out),
            None => may_be_there(&member.path, name),
        };
        taken.map_err(|error| tar.locate(error))?;
        progress(member.size);
    }
    match missing.keys().next() {
        None => out.commit(manifest, false).map(|()| lineage),
        Some(name) => Err(tar.locate(corrupt(format!(
            "{name} is missing: fetch or export it again"
        )))),
    }
}

/// A member's name in the world directory, whichever way it was archived.
fn name_in_world<'a>(path: &'a str, manifest: &'a Manifest) -> &'a str {
    if path == ROOTFS_DIFF
        && let Some(rootfs) = manifest.part(PartKind::Rootfs)
    {
        return rootfs.files[0].name.as_str();
    }
    match path.split_once('/') {
        Some((CHECKPOINT, name)) => name,
        _ => path,
    }
}

fn take(tar: &mut TarReader, member: &Member, file: &PartFile, out: &WorldDirWriter) -> Result<()> {
    if member.size != file.size {
        return Err(corrupt(format!(
            "{} is {} bytes and should be {}",
            member.path, member.size, file.size
        )));
    }
    let mut writer = out.copy_of(file)?;
    let mut buffered = io::BufWriter::with_capacity(256 << 10, &mut writer);
    let copied =
        io::copy(&mut tar.data(), &mut buffered).and_then(|_| io::Write::flush(&mut buffered));
    copied.map_err(|error| unreadable(&member.path, error))?;
    drop(buffered);
    match writer.finish() == *file {
        true => Ok(()),
        false => Err(damaged(member)),
    }
}

/// A pagemap, which an archive may have with counts for older readers.
fn pagemap(
    tar: &mut TarReader,
    member: &Member,
    file: &PartFile,
    out: &WorldDirWriter,
) -> Result<()> {
    let bytes = tar.read(member, MOST_PAGEMAP as usize)?;
    let bytes = match file.is_bytes(&bytes) {
        true => bytes,
        false => without_old_counts(&bytes).unwrap_or(bytes),
    };
    match out.write(file.name.as_str(), &bytes)? == *file {
        true => Ok(()),
        false => Err(damaged(member)),
    }
}

fn damaged(member: &Member) -> Error {
    corrupt(format!(
        "{} is damaged: fetch or export it again",
        member.path
    ))
}

/// Other tools' files may stand beside a world's; what CRIU would take for an image may not.
fn may_be_there(path: &str, name: &str) -> Result<()> {
    let image = name.ends_with(".img") || path != name;
    match image && !TOLERATED.contains(&name) && name != MANIFEST_NAME {
        true => Err(corrupt(format!("{path} does not belong to it"))),
        false => Ok(()),
    }
}

/// A promise of more than the disk can hold is not begun.
pub(super) fn must_have_room(manifest: &Manifest, folder: &Path) -> Result<()> {
    let free = rustix::fs::statvfs(folder)
        .map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize))
        .context(|| format!("look at {}", folder.display()))?;
    match manifest.size() <= free {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::NoSpace,
            format!(
                "the world is {} bytes, {} has {free} left",
                manifest.size(),
                folder.display()
            ),
        )),
    }
}
