//! `world.json`: what a world consists of and where it comes from.
//!
//! The file is written last: its existence means that the world is whole. Its
//! parser takes untrusted bytes, so everything is bounded first (size, depth,
//! length of strings, counts) and unknown fields are errors: a field that this
//! version does not know could be a condition of the restore. Serialisation is
//! deterministic: keys sorted, parts and files in the order of their names. The
//! file carries its own checksum.
//! `docs/format.md` describes the format for people.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::checksum;
use super::file_name::FileName;
use super::host::HostFacts;
use super::processes::DumpParameters;
use crate::digest::{Digest, Hashing, PIECE};
use crate::json;
use crate::{Error, ErrorKind, Result};

/// Name of the manifest in a world directory.
pub const MANIFEST_NAME: &str = "world.json";
/// The format this version writes, and the newest it reads.
pub const FORMAT: u32 = 1;
/// What kind of document a manifest is.
pub const KIND: &str = "application/vnd.worldshim.world.v1+json";

/// Limits on a manifest; beyond each it is refused as corrupt.
pub const LIMITS: json::Limits = json::Limits {
    bytes: 16 << 20,
    depth: 24,
    string: 32 << 10,
};
/// Most parts in a world.
pub const MAX_PARTS: usize = 64;
/// Most files in a world.
pub const MAX_FILES: usize = 65_536;
/// Most entries in each of the lists and maps that say what a world is about.
pub const MAX_ENTRIES: usize = 65_536;

/// What `world.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// The layers below the container's own, where the root is an overlay.
    pub base: Option<BaseLayers>,
    /// Digest of the file itself, see [`checksum`]. Whatever a writer puts here is replaced.
    pub checksum: Digest,
    /// Whose world it is.
    pub container: ContainerIdentity,
    /// When the world was made, UTC.
    #[serde(with = "time::serde::rfc3339")]
    pub created: OffsetDateTime,
    /// What a restore has to replay of the dump.
    pub dump: DumpParameters,
    /// [`FORMAT`] of the writer.
    pub format: u32,
    /// Where the world was made.
    pub host: HostFacts,
    /// The image the container was made from.
    pub image: Option<ImageIdentity>,
    /// Always [`KIND`].
    pub kind: String,
    /// Processes that ran in the container and are not part of the world.
    pub omitted: Vec<OmittedProcess>,
    /// What the world consists of.
    pub parts: Vec<Part>,
    /// What looked like a credential and was replaced in the spec and env parts.
    pub redacted: Vec<Redaction>,
    /// How long it took.
    pub times: Times,
}

/// A container as containerd knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerIdentity {
    /// Container id.
    pub id: String,
    /// Labels, with credentials replaced.
    pub labels: BTreeMap<String, String>,
    /// containerd namespace.
    pub namespace: String,
    /// Runtime name, `io.containerd.world.v1`.
    pub runtime: String,
}

/// The image a container was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageIdentity {
    /// Digest of its manifest or index, where known (`sha256:...`).
    pub digest: Option<String>,
    /// Full reference, `docker.io/library/busybox:latest`.
    pub name: String,
}

/// What the rootfs part stands on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BaseLayers {
    /// Chain id of the topmost layer below the container's own, where known.
    pub chain_id: Option<String>,
    /// Number of `lowerdir`s of the overlay.
    pub lowerdirs: u32,
    /// Snapshotter, `overlayfs`.
    pub snapshotter: String,
}

/// What a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartKind {
    /// CRIU's images of the process tree.
    Processes,
    /// The container's own filesystem layer, as an OCI layer tar.
    Rootfs,
    /// The OCI runtime spec as run, redacted.
    Spec,
    /// The init process's environment and circumstances, redacted.
    Env,
}

impl PartKind {
    /// The name of the only part of this kind in format 1.
    pub fn name(self) -> &'static str {
        match self {
            PartKind::Processes => "processes",
            PartKind::Rootfs => "rootfs",
            PartKind::Spec => "spec",
            PartKind::Env => "env",
        }
    }
}

/// One part of a world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Part {
    /// Its files.
    pub files: Vec<PartFile>,
    /// What it is.
    pub kind: PartKind,
    /// Its name, unique in the world.
    pub name: String,
}

impl Part {
    /// The part of a kind, under the kind's own name.
    pub fn new(kind: PartKind, files: Vec<PartFile>) -> Part {
        Part {
            files,
            kind,
            name: kind.name().to_string(),
        }
    }

    /// Size of all its files together, in bytes.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// One file of a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PartFile {
    /// Its name in the world directory.
    pub name: FileName,
    /// Where it is there, the digest is one in pieces of this many bytes; see
    /// [`PIECE`](crate::digest::PIECE), the only value so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub piece_size: Option<u64>,
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
}

impl PartFile {
    /// The file `name` once its bytes were taken.
    pub fn hashed(name: FileName, hashing: Hashing) -> PartFile {
        let piece_size = hashing.piece_size();
        let (sha256, size) = hashing.finish();
        PartFile {
            name,
            piece_size,
            sha256,
            size,
        }
    }

    /// What its bytes are to be given to, to see whether they are those of this file.
    pub fn hashing(&self) -> Hashing {
        match self.piece_size {
            None => Hashing::default(),
            Some(_) => Hashing::in_pieces(),
        }
    }

    /// Whether bytes that were given to [`PartFile::hashing`] are this file's.
    pub fn is(&self, hashing: Hashing) -> bool {
        hashing.finish() == (self.sha256, self.size)
    }

    /// Whether these are its bytes.
    pub fn is_bytes(&self, bytes: &[u8]) -> bool {
        let mut hashing = self.hashing();
        hashing.update(bytes);
        self.is(hashing)
    }
}

/// A process that ran in the container and is not part of the world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OmittedProcess {
    /// Its name (`comm`). Its arguments are not recorded: they may hold credentials.
    pub command: String,
    /// The id of the exec it came from, where known.
    pub exec_id: Option<String>,
    /// Its pid as the host saw it.
    pub pid: i32,
}

/// Something that was replaced by a marker. The value itself is nowhere in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Redaction {
    /// Name of the variable, argument, annotation or label.
    pub name: String,
    /// Where it was: `spec.process.env`, `env.live`, `container.labels`, ...
    pub place: String,
}

/// Durations in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Times {
    /// From the request to freeze until nothing needed the container frozen any more.
    pub frozen_ns: u64,
    /// Per part, from its beginning to its end; parts are captured side by side.
    pub parts_ns: BTreeMap<String, u64>,
    /// From the checkpoint's beginning until the manifest was written.
    pub total_ns: u64,
}

/// What every format, also one yet to come, promises about its manifest.
#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    checksum: Option<Digest>,
    format: u64,
    #[serde(default)]
    host: HeaderHost,
}

#[derive(Deserialize, Default)]
struct HeaderHost {
    #[serde(default)]
    worldshim: String,
}

impl Manifest {
    /// Reads a manifest from untrusted bytes.
    ///
    /// [`ErrorKind::ForeignWorld`] where its format is newer than [`FORMAT`],
    /// [`ErrorKind::CorruptWorld`] for everything else that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Manifest> {
        json::check(bytes, &LIMITS)
            .and_then(|()| check_header(bytes))
            .and_then(|()| json::parse_checked::<Manifest>(bytes))
            .and_then(|manifest| manifest.check().map(|()| manifest))
            .map_err(|error| error.within(MANIFEST_NAME))
    }

    /// The manifest as it stands in `world.json`: UTF-8, sorted, indented, ending in a
    /// newline. Fails where [`Manifest::parse`] would refuse the result.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut manifest = self.clone();
        manifest.checksum = Digest::default();
        manifest.parts.sort_by(|a, b| a.name.cmp(&b.name));
        for part in &mut manifest.parts {
            part.files.sort_by(|a, b| a.name.cmp(&b.name));
        }
        manifest.redacted.sort();
        manifest.redacted.dedup();
        let bytes = checksum::sealed(json::to_bytes(&manifest)?)?;
        Manifest::parse(&bytes)?;
        Ok(bytes)
    }

    /// The part of a kind.
    pub fn part(&self, kind: PartKind) -> Option<&Part> {
        self.parts.iter().find(|part| part.kind == kind)
    }

    /// The part of a kind, or an error that says it is missing.
    pub fn need_part(&self, kind: PartKind) -> Result<&Part> {
        self.part(kind).ok_or_else(|| {
            corrupt(format!(
                "there is no {} part: take another checkpoint",
                kind.name()
            ))
        })
    }

    /// All files of all parts.
    pub fn files(&self) -> impl Iterator<Item = &PartFile> {
        self.parts.iter().flat_map(|part| &part.files)
    }

    /// Size of all files of all parts together, in bytes.
    pub fn size(&self) -> u64 {
        self.files().map(|file| file.size).sum()
    }

    /// Everything that serde's types do not say.
    fn check(&self) -> Result<()> {
        if self.format == 0 {
            return Err(corrupt("format: 0 was never a format".into()));
        }
        if self.kind != KIND {
            return Err(corrupt(format!("kind: must be {KIND}")));
        }
        self.check_counts()?;
        self.check_parts()
    }

    fn check_counts(&self) -> Result<()> {
        let files = self.parts.iter().map(|part| part.files.len()).sum();
        let counts = [
            ("parts", self.parts.len(), MAX_PARTS),
            ("files", files, MAX_FILES),
            ("redacted", self.redacted.len(), MAX_ENTRIES),
            ("omitted", self.omitted.len(), MAX_ENTRIES),
            ("container.labels", self.container.labels.len(), MAX_ENTRIES),
            (
                "host.cpuFeatures",
                self.host.cpu_features.len(),
                MAX_ENTRIES,
            ),
            (
                "dump.externalMounts",
                self.dump.external_mounts.len(),
                MAX_ENTRIES,
            ),
            ("dump.namespaces", self.dump.namespaces.len(), MAX_PARTS),
            ("dump.stdio", self.dump.stdio.len(), MAX_PARTS),
            ("times.partsNs", self.times.parts_ns.len(), MAX_PARTS),
        ];
        match counts.iter().find(|(_, count, most)| count > most) {
            Some((what, count, most)) => Err(corrupt(format!(
                "{what}: {count} entries, at most {most} are allowed"
            ))),
            None => Ok(()),
        }
    }

    fn check_parts(&self) -> Result<()> {
        let mut kinds = BTreeSet::new();
        let mut names = BTreeSet::new();
        let mut total = 0u64;
        for part in &self.parts {
            if part.name != part.kind.name() || !kinds.insert(part.kind) {
                return Err(corrupt(format!(
                    "parts: there may be one {0} part, named {0:?}",
                    part.kind.name()
                )));
            }
            let single = part.kind != PartKind::Processes;
            if part.files.is_empty() || (single && part.files.len() != 1) {
                return Err(corrupt(format!(
                    "parts: the {} part lists {} files",
                    part.name,
                    part.files.len()
                )));
            }
            for file in &part.files {
                let name = file.name.as_str();
                if name.starts_with(MANIFEST_NAME) || !names.insert(name) {
                    return Err(corrupt(format!(
                        "parts: file {name} is listed twice or is the manifest itself"
                    )));
                }
                if file.piece_size.is_some() && (single || file.piece_size != Some(PIECE)) {
                    return Err(corrupt(format!(
                        "parts: file {name} is hashed in pieces, which only images of CRIU's \
                         are, of {PIECE} bytes"
                    )));
                }
                total = total
                    .checked_add(file.size)
                    .filter(|total| *total <= i64::MAX as u64)
                    .ok_or_else(|| corrupt("parts: sizes beyond what a disk can hold".into()))?;
            }
        }
        Ok(())
    }
}

fn check_header(bytes: &[u8]) -> Result<()> {
    let header: Header = json::parse_checked(bytes)?;
    if let Some(checksum) = header.checksum {
        checksum::check(checksum, bytes)?;
    }
    if header.format <= u64::from(FORMAT) {
        return Ok(());
    }
    let writer: String = header.host.worldshim.chars().take(40).collect();
    let needed = match writer.as_str() {
        "" => "a newer worldshim".to_string(),
        writer => format!("worldshim {} or newer", writer.escape_debug()),
    };
    Err(Error::new(
        ErrorKind::ForeignWorld,
        format!(
            "format {} is newer than {FORMAT}, the newest this worldshim {} reads: install {needed}",
            header.format,
            env!("CARGO_PKG_VERSION")
        ),
    ))
}

fn corrupt(message: String) -> Error {
    Error::new(ErrorKind::CorruptWorld, message)
}
