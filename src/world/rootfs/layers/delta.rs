//! A layer that says what to change in the layers of the parent world.

use super::archive::Archive;
use super::compress::Compressor;
use super::merge::merge;
use super::merged::Merged;
use super::node::Nodes;
use super::plan::{self, Plan};
use super::{Expected, MOST_LAYERS, Written};
use crate::error::IoContext;
use crate::world::rootfs::entry::{Entry, EntryPath, Kind};
use crate::world::rootfs::reader::Reader;
use crate::{Error, ErrorKind, Result};
use std::cmp::Ordering;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, Write};

/// What became of a delta layer.
#[derive(Debug)]
pub enum Outcome {
    /// The parent's layers give the world's rootfs as they are; nothing was written.
    Unchanged,
    /// It was written; on top of the `onto` lowest of the parent's layers it
    /// gives the world's rootfs.
    Delta {
        /// The layer.
        written: Written,
        /// How many of the parent's layers it stands on.
        onto: usize,
    },
    /// The world needs a full layer. What was written is of no use.
    NeedsFull(WhyFull),
}

/// Why a delta layer would not do.
#[derive(Debug)]
pub enum WhyFull {
    /// The delta would be longer than half of a full layer.
    TooMuchChanged,
    /// The layers would hold more than twice what is in use.
    TooMuchDead,
    /// Layers can only hide what is below them: the parent hid something of the
    /// image at this path (escaped) that the world shows.
    Inexpressible(String),
    /// The parent's layers cannot be read or are damaged.
    Parent(Error),
    /// The layers do not give the world's `rootfs.tar` again.
    Differs(Error),
}

impl fmt::Display for WhyFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WhyFull::TooMuchChanged => write!(f, "more than half of the files' bytes changed"),
            WhyFull::TooMuchDead => write!(f, "the parent's layers are mostly out of date"),
            WhyFull::Inexpressible(path) => {
                write!(f, "{path}: shows the image again, which no layer can say")
            }
            WhyFull::Parent(error) => write!(f, "the parent's layers: {error}"),
            WhyFull::Differs(error) => write!(f, "the delta layer is wrong: {error}"),
        }
    }
}

/// What ends the making of a delta.
pub(super) enum Stop {
    Full(WhyFull),
    Fail(Error),
}

impl Stop {
    pub fn parent(error: Error) -> Stop {
        Stop::Full(WhyFull::Parent(error))
    }

    pub fn inexpressible(path: &EntryPath) -> Stop {
        Stop::Full(WhyFull::Inexpressible(path.to_string()))
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Fail(error)
    }
}

/// Writes what the world's `rootfs.tar` changes in its `parents`, the layers
/// of an earlier world of the same container, the lowest first. `out` is an
/// empty file; it is read again to see that all layers together give `expected`.
///
/// When the chain would get too long, or hold too much that is out of date, the
/// delta is made onto the parent's lowest layer alone.
///
/// # Errors
/// `CorruptWorld` if `tar` is damaged; other kinds from the operating system.
/// Whatever is wrong with the parents only makes a full layer necessary.
pub fn write_delta<R, F>(
    tar: &File,
    expected: &Expected,
    parents: &mut [R],
    out: &mut F,
) -> Result<Outcome>
where
    R: Read + Seek,
    F: Read + Write + Seek,
{
    match write(tar, expected, parents, out, expected.size / 2) {
        Ok(outcome) => Ok(outcome),
        Err(Stop::Full(why)) => Ok(Outcome::NeedsFull(why)),
        Err(Stop::Fail(error)) => Err(error),
    }
}

/// Writes a delta of at most `limit` bytes, uncompressed.
pub(super) fn write<R, F>(
    tar: &File,
    expected: &Expected,
    parents: &mut [R],
    out: &mut F,
    limit: u64,
) -> Result<Outcome, Stop>
where
    R: Read + Seek,
    F: Read + Write + Seek,
{
    if parents.is_empty() {
        let what = "a delta layer without a parent";
        return Err(Error::new(ErrorKind::Internal, what).into());
    }
    let (mut plan, mut before) = compare(tar, expected, parents, limit)?;
    if plan.is_empty() {
        check(expected, parents, None::<&mut F>)?;
        return Ok(Outcome::Unchanged);
    }
    let fits = |size: u64, before: u64| before.saturating_add(size) <= expected.budget();
    let mut onto = parents.len();
    if onto > 1 && (onto >= MOST_LAYERS || !fits(plan.size, before)) {
        onto = 1;
        (plan, before) = compare(tar, expected, &mut parents[..1], limit)?;
    }
    if !fits(plan.size, before) {
        return Err(Stop::Full(WhyFull::TooMuchDead));
    }
    let written = carry_out(tar, &plan, &mut *out)?;
    if written.size > limit {
        return Err(Stop::Full(WhyFull::TooMuchChanged));
    }
    if !fits(written.size, before) {
        return Err(Stop::Full(WhyFull::TooMuchDead));
    }
    check(expected, &mut parents[..onto], Some(out))?;
    Ok(Outcome::Delta { written, onto })
}

/// Plans a delta; gives also what the parents hold, in bytes.
fn compare<R: Read + Seek>(
    tar: &File,
    expected: &Expected,
    parents: &mut [R],
    limit: u64,
) -> Result<(Plan, u64), Stop> {
    rewind(parents)?;
    let mut parent = Merged::new(parents.iter_mut(), expected.budget()).map_err(Stop::parent)?;
    let plan = plan::compare(tar, &mut parent, limit)?;
    Ok((plan, parent.size()))
}

/// Writes the layer that was planned.
fn carry_out(tar: &File, plan: &Plan, out: impl Write) -> Result<Written> {
    let mut archive = Archive::new(Compressor::new(out, None)?, u64::MAX);
    let mut nodes = Nodes::new(Reader::new(tar)?);
    let mut removed = plan.removed.iter().peekable();
    let mut number = 0;
    while let Some(mut node) = nodes.next()? {
        let path = &node.entry.path;
        while let Some(gone) = removed.next_if(|gone| gone.order(path) == Ordering::Less) {
            archive.begin(&Entry::mark(gone.clone(), Kind::Removed))?;
        }
        // Every layer begins with its root.
        if number == 0 || plan.nodes.contains(&number) {
            node.opaque = plan.opaque.contains(&number);
            archive.node(&node, |buffer| nodes.read_data(buffer))?;
        }
        number += 1;
    }
    for gone in removed {
        archive.begin(&Entry::mark(gone.clone(), Kind::Removed))?;
    }
    archive.finish()?.finish()
}

/// Merges all layers and compares with what they have to give.
fn check<R: Read + Seek>(
    expected: &Expected,
    parents: &mut [R],
    delta: Option<&mut (impl Read + Seek)>,
) -> Result<(), Stop> {
    rewind(parents)?;
    let mut layers: Vec<&mut dyn Read> = Vec::new();
    layers.extend(parents.iter_mut().map(|parent| parent as &mut dyn Read));
    if let Some(delta) = delta {
        delta.rewind().context(|| "read the delta layer")?;
        layers.push(delta);
    }
    merge(&mut layers, expected, io::sink()).map_err(|error| Stop::Full(WhyFull::Differs(error)))
}

fn rewind<R: Seek>(parents: &mut [R]) -> Result<(), Stop> {
    for parent in parents {
        let rewound = parent.rewind().context(|| "read the parent's layers");
        rewound.map_err(Stop::parent)?;
    }
    Ok(())
}
