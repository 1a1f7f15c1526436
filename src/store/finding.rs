//! What can be wrong with a store: one typed value for each kind of damage.

use std::fmt;

use serde::Serialize;

use crate::digest::Digest;
use crate::{Error, ErrorKind};

/// How bad a [`Finding`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Nothing is wrong; it can be cleaned up.
    Note,
    /// A world cannot be read, or the store cannot be trusted to keep one.
    Damage,
}

/// What is wrong with one blob.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum Fault {
    /// It is not there.
    Missing,
    /// It is shorter or longer than it should be, in bytes.
    Size {
        /// As it lies there.
        found: u64,
        /// As a manifest or the index says.
        expected: u64,
    },
    /// Its content is not what its name says.
    Corrupt {
        /// The digest of its content.
        found: Digest,
    },
    /// It is intact, and not the manifest or index it should be.
    Undecodable {
        /// What is wrong.
        why: String,
    },
    /// It is something else than its descriptor says.
    MediaType {
        /// The descriptor's words.
        expected: String,
        /// Its own.
        found: String,
    },
    /// It is a folder, a symlink or the like.
    NotAFile,
    /// Indexes in indexes, or subjects of subjects, without end.
    TooDeep,
    /// The system did not let it be read.
    Unreadable {
        /// The system's words.
        why: String,
    },
}

/// Something found by [`fsck`](super::Store::fsck).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Finding {
    /// `oci-layout` is missing, damaged or of another version.
    Layout {
        /// What is wrong.
        why: String,
    },
    /// `index.json` is missing or damaged: nobody knows which worlds there are.
    Index {
        /// What is wrong.
        why: String,
    },
    /// An entry of `index.json` leads nowhere.
    Entry {
        /// Its name, or what stands for its digest.
        entry: String,
        /// What is wrong.
        why: String,
    },
    /// Two entries of `index.json` have one name.
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A blob is damaged.
    Blob {
        /// Which one.
        digest: Digest,
        /// What is wrong with it.
        #[serde(flatten)]
        fault: Fault,
        /// The worlds that cannot be read because of it.
        worlds: Vec<Digest>,
    },
    /// A file that is none of the store's.
    Foreign {
        /// From the store's root.
        path: String,
    },
    /// Others may read or change it.
    Mode {
        /// From the store's root.
        path: String,
        /// The permission bits.
        mode: u32,
    },
    /// A lease whose owner is dead.
    DeadLease {
        /// From the store's root.
        path: String,
    },
    /// A temporary file whose writer is dead.
    DeadTemporary {
        /// From the store's root.
        path: String,
        /// In bytes.
        size: u64,
    },
    /// A blob that was fetched in part; the next pull goes on with it.
    Partial {
        /// Which one.
        digest: Digest,
        /// How much of it is there, in bytes.
        size: u64,
    },
}

impl Finding {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        match self {
            Finding::Layout { .. }
            | Finding::Index { .. }
            | Finding::Entry { .. }
            | Finding::DuplicateName { .. }
            | Finding::Blob { .. }
            | Finding::Mode { .. } => Severity::Damage,
            Finding::Foreign { .. }
            | Finding::DeadLease { .. }
            | Finding::DeadTemporary { .. }
            | Finding::Partial { .. } => Severity::Note,
        }
    }
}

impl Fault {
    /// What an error at opening or reading a blob means for it.
    pub(super) fn of_error(error: &Error) -> Fault {
        match error.kind() {
            ErrorKind::CorruptWorld => Fault::NotAFile,
            _ => Fault::Unreadable {
                why: error.to_string(),
            },
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Missing => write!(f, "is missing"),
            Fault::Size { found, expected } => {
                write!(f, "is {found} bytes and should be {expected}")
            }
            Fault::Corrupt { found } => {
                write!(f, "is damaged: its content has the digest {found}")
            }
            Fault::Undecodable { why } => write!(f, "cannot be decoded: {why}"),
            Fault::MediaType { expected, found } => {
                write!(f, "should be {expected:?} and is {found:?}")
            }
            Fault::NotAFile => write!(f, "is not a regular file"),
            Fault::TooDeep => write!(f, "is nested too deeply"),
            Fault::Unreadable { why } => write!(f, "cannot be read: {why}"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Layout { why } => write!(
                f,
                "oci-layout: {why}; it should be {{\"imageLayoutVersion\":\"1.0.0\"}}"
            ),
            Finding::Index { why } => write!(
                f,
                "index.json: {why}; put it back from a backup, and run no gc before"
            ),
            Finding::Entry { entry, why } => write!(f, "index.json: the entry {entry:?} {why}"),
            Finding::DuplicateName { name } => write!(
                f,
                "index.json: {name:?} names two worlds; remove one by its digest"
            ),
            Finding::Blob {
                digest,
                fault,
                worlds,
            } => {
                write!(f, "blob {digest} {fault}; ")?;
                match worlds.as_slice() {
                    [] => write!(f, "no world needs it: ")?,
                    [world] => write!(f, "{world} needs it: ")?,
                    [world, more @ ..] => {
                        write!(f, "{world} and {} others need it: ", more.len())?;
                    }
                }
                f.write_str(match (fault, worlds.is_empty()) {
                    (Fault::Missing, _) => "pull or import what needs it again",
                    (_, true) => "`world fsck --repair` sets it aside",
                    _ => "`world fsck --repair` sets it aside, then pull or import what needs it again",
                })
            }
            Finding::Foreign { path } => write!(f, "{path:?} does not belong to the store"),
            Finding::Mode { path, mode } => write!(
                f,
                "{path:?} has mode {mode:04o}: others can read or change it; chmod go= it"
            ),
            Finding::DeadLease { path } => {
                write!(f, "{path} is of a dead process; gc removes it")
            }
            Finding::DeadTemporary { path, size } => {
                write!(
                    f,
                    "{path} ({size} bytes) is of a dead process; gc removes it"
                )
            }
            Finding::Partial { digest, size } => write!(
                f,
                "{size} bytes of {digest} were fetched; the next pull goes on from there"
            ),
        }
    }
}

impl From<Finding> for Error {
    fn from(finding: Finding) -> Error {
        Error::new(ErrorKind::CorruptWorld, finding.to_string())
    }
}
