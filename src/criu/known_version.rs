//! The version of a CRIU program, remembered until the next boot.
//!
//! A program that only says its version takes as long to start as one that
//! restores. What it said is kept in `/run/worldshim/criu.json`, with what tells
//! this file from any other: another program, or one that was replaced, is asked.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::features::Version;
use crate::error::{IoContext, Result};
use crate::json;

const FOLDER: &str = "/run/worldshim";
const NAME: &str = "criu.json";

/// What a program said, and which it was.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KnownVersion {
    program: Program,
    version: Version,
}

/// A file, as it was when it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Program {
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    /// Of the last change of its contents or attributes, in nanoseconds since 1970.
    changed: i64,
}

impl Program {
    /// The file at `path` as it is now.
    pub fn at(path: &Path) -> Option<Program> {
        let found = fs::metadata(path).ok()?;
        Some(Program {
            path: path.to_owned(),
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            changed: (found.ctime().saturating_mul(1_000_000_000))
                .saturating_add(found.ctime_nsec()),
        })
    }
}

/// What this very program said before; nothing where that cannot be told.
pub(super) fn recall(program: &Program) -> Option<Version> {
    let bytes = fs::read(Path::new(FOLDER).join(NAME)).ok()?;
    let known: KnownVersion = serde_json::from_slice(&bytes).ok()?;
    (known.program == *program).then_some(known.version)
}

/// Keeps what a program said. One that cannot be kept is asked again.
pub(super) fn keep(program: Program, version: Version) {
    if let Err(error) = write(&KnownVersion { program, version }) {
        tracing::debug!("CRIU's version is not kept: {error}");
    }
}

/// By a rename, so that whoever reads it beside this reads a whole one.
fn write(known: &KnownVersion) -> Result<()> {
    let folder = Path::new(FOLDER);
    let making = || format!("make {FOLDER}");
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .context(making)?;
    let bytes = json::to_bytes(known)?;
    let new = folder.join(format!(".{NAME}.{}", std::process::id()));
    fs::write(&new, bytes)
        .and_then(|()| fs::rename(&new, folder.join(NAME)))
        .inspect_err(|_| {
            let _ = fs::remove_file(&new);
        })
        .context(|| format!("write {}", new.display()))
}
