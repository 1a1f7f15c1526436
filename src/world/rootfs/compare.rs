//! Whether a layer on disk is already what an archive says.

use super::entry::{Entry, Kind, Segment};
use super::holes;
use super::reader::Reader;
use super::source::Source;
use super::upper::Upper;
use super::walk::Walk;
use crate::error::IoContext;
use crate::{ErrorKind, Result};
use rustix::fd::BorrowedFd;
use std::io::{Read, Seek};

const BUFFER: usize = 1 << 20;

/// Scratch space for what is read from the archive and from the disk.
pub(super) type Buffers = (Vec<u8>, Vec<u8>);

pub(super) fn buffers() -> Buffers {
    (vec![0; BUFFER], vec![0; BUFFER])
}

/// Whether `upper` holds exactly what `tar` says: names, types, owners, modes,
/// times, attributes, links, and every byte. Sizes and times alone are not
/// believed: a container sets times as it likes. Which files have holes does
/// not count.
///
/// # Errors
/// As [`super::verify`], if the archive is not to be trusted.
pub fn same_as<R: Read + Seek>(upper: &Upper, tar: R) -> Result<bool> {
    let mut reader = Reader::new(tar)?;
    let mut walk = Walk::new(upper);
    let mut buffers = buffers();
    loop {
        let wanted = reader.next()?;
        let there = match walk.next() {
            // What cannot be captured was not captured.
            Err(error) if error.kind() == ErrorKind::Obstacle => return Ok(false),
            there => there?,
        };
        let (wanted, there) = match (wanted, there) {
            (Some(wanted), Some(there)) => (wanted, there),
            (None, None) => return Ok(true),
            _ => return Ok(false),
        };
        if !alike(&wanted, &there) {
            return Ok(false);
        }
        if let Some(file) = walk.file()
            && !same_content(&mut reader, &wanted, file, &mut buffers)?
        {
            return Ok(false);
        }
    }
}

fn alike(a: &Entry, b: &Entry) -> bool {
    let kinds = match (&a.kind, &b.kind) {
        (Kind::File { size: a, .. }, Kind::File { size: b, .. }) => a == b,
        // What a further name says of its inode is said by the first already.
        (Kind::Hardlink { target: first }, Kind::Hardlink { target: second }) => {
            return a.path == b.path && first == second;
        }
        (a, b) => a == b,
    };
    kinds && a.path == b.path && a.meta == b.meta
}

/// Whether the archive's data of the entry just read are the file's bytes.
pub(super) fn same_content<S: Source>(
    reader: &mut Reader<S>,
    wanted: &Entry,
    file: BorrowedFd<'_>,
    buffers: &mut Buffers,
) -> Result<bool> {
    let Kind::File { size, segments } = &wanted.kind else {
        return Ok(true);
    };
    let (scratch, ours) = buffers;
    let mut same = true;
    reader.data(wanted, scratch, |at, theirs| {
        let ours = &mut ours[..theirs.len()];
        same = read_all(file, ours, at)? && ours == theirs;
        Ok(same)
    })?;
    for gap in gaps(segments.as_deref().unwrap_or_default(), *size) {
        if segments.is_none() || !same {
            break;
        }
        same = is_zero(file, gap, ours)?;
    }
    Ok(same)
}

/// The holes between the stretches of data.
fn gaps(segments: &[Segment], size: u64) -> impl Iterator<Item = Segment> {
    let starts = std::iter::once(0).chain(segments.iter().map(|s| s.start + s.len));
    let ends = segments.iter().map(|s| s.start).chain([size]);
    starts.zip(ends).map(|(start, end)| Segment {
        start,
        len: end - start,
    })
}

/// Whether a stretch of a file reads as zeros; its own holes are not read.
fn is_zero(file: BorrowedFd<'_>, gap: Segment, buffer: &mut [u8]) -> Result<bool> {
    let (mut at, end) = (gap.start, gap.start + gap.len);
    while at < end {
        match holes::next_data(file, at).context(|| "look for data")? {
            Some(data) if data < end => at = data,
            _ => return Ok(true),
        }
        let length = (end - at).min(64 << 10) as usize;
        let chunk = &mut buffer[..length];
        if !read_all(file, chunk, at)? || chunk.iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
        at += length as u64;
    }
    Ok(true)
}

/// Fills `buffer` from `at` on, or says that the file is shorter.
fn read_all(file: BorrowedFd<'_>, buffer: &mut [u8], mut at: u64) -> Result<bool> {
    let mut filled = 0;
    while filled < buffer.len() {
        let got = rustix::io::pread(file, &mut buffer[filled..], at).context(|| "read a file")?;
        if got == 0 {
            return Ok(false);
        }
        filled += got;
        at += got as u64;
    }
    Ok(true)
}
