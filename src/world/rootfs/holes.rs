//! Where a file holds data and where holes, and GNU's sparse map 1.0: decimal
//! numbers, one a line (how many stretches, then start and length of each),
//! filled up with NUL to whole blocks.

use super::entry::Segment;
use super::limits;
use rustix::fd::BorrowedFd;
use rustix::fs::{SeekFrom, seek};
use rustix::io::{Errno, Result};

/// Below this many bytes a file is not searched for holes.
const WORTH_IT: u64 = 4096;

/// The stretches of data in a file, or `None` if it has no hole.
pub(super) fn find(file: BorrowedFd<'_>, size: u64) -> Result<Option<Vec<Segment>>> {
    if size < WORTH_IT {
        return Ok(None);
    }
    let first_hole = match seek(file, SeekFrom::Hole(0)) {
        Ok(hole) => hole,
        // Empty since, or a filesystem that cannot tell.
        Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
        Err(error) => return Err(error),
    };
    if first_hole >= size {
        return Ok(None);
    }
    let mut segments = Vec::new();
    if first_hole > 0 {
        segments.push(Segment {
            start: 0,
            len: first_hole,
        });
    }
    let mut hole = first_hole;
    while let Some(start) = next_data(file, hole)?.filter(|&start| start < size) {
        // The last stretch allowed takes the rest of the file, holes and all.
        hole = match segments.len() + 1 < limits::SEGMENTS {
            true => seek(file, SeekFrom::Hole(start))?.min(size),
            false => size,
        };
        segments.push(Segment {
            start,
            len: hole - start,
        });
    }
    Ok(Some(segments))
}

/// Where the next data begins at or after `from`.
pub(super) fn next_data(file: BorrowedFd<'_>, from: u64) -> Result<Option<u64>> {
    match seek(file, SeekFrom::Data(from)) {
        Ok(start) => Ok(Some(start)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The map of a file of `size` bytes, in whole blocks.
pub(super) fn encode(segments: &[Segment], size: u64) -> Vec<u8> {
    let ends_in_hole = segments.last().map_or(0, |s| s.start + s.len) < size;
    // An empty stretch at the end says that the file goes on to there.
    let end = Segment {
        start: size,
        len: 0,
    };
    let all = segments.iter().chain(ends_in_hole.then_some(&end));
    let mut map = format!("{}\n", segments.len() + usize::from(ends_in_hole));
    for Segment { start, len } in all {
        map += &format!("{start}\n{len}\n");
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(512), 0);
    map
}
