//! Writes a layer as `rootfs.tar`, while its container stands still.

use super::entry::{Entry, Kind, Segment};
use super::reader::Totals;
use super::upper::Upper;
use super::walk::Walk;
use super::{encode, holes, limits};
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};
use rustix::fd::BorrowedFd;
use std::io::Write;

/// Bytes gathered before they are written. To read and write so much at a time
/// takes two thirds of the time of `copy_file_range` or `sendfile` on ext4,
/// which go page by page.
const BUFFER: usize = 1 << 20;

/// Writes the layer to `out` and flushes it. Nothing may change the layer
/// meanwhile; a file that shrinks under the reader is an error.
///
/// # Errors
/// `Obstacle` names what a layer's archive cannot hold; other kinds come from
/// the operating system. What was written until then is of no use.
pub fn capture<W: Write>(upper: &Upper, out: W) -> Result<Totals> {
    capture_layers(vec![upper], out)
}

/// Like [`capture`], of several layers as the one that they are together; the topmost comes
/// first.
pub fn capture_layers<W: Write>(layers: Vec<&Upper>, out: W) -> Result<Totals> {
    let mut walk = Walk::through(layers);
    let mut archive = Archive {
        out,
        buffer: vec![0; BUFFER],
        filled: 0,
        totals: Totals::default(),
    };
    let mut headers = Vec::new();
    while let Some(entry) = walk.next()? {
        if archive.totals.entries >= limits::ENTRIES {
            return Err(Error::new(
                ErrorKind::Obstacle,
                "the rootfs holds too many files",
            ));
        }
        archive.totals.entries += 1;
        archive.entry(&entry, walk.file(), &mut headers)?;
    }
    archive.put(&[0; 1024])?;
    archive.flush()?;
    archive.out.flush().context(|| "write rootfs.tar")?;
    Ok(archive.totals)
}

struct Archive<W> {
    out: W,
    buffer: Vec<u8>,
    filled: usize,
    totals: Totals,
}

impl<W: Write> Archive<W> {
    fn entry(
        &mut self,
        entry: &Entry,
        file: Option<BorrowedFd<'_>>,
        headers: &mut Vec<u8>,
    ) -> Result<()> {
        headers.clear();
        let (Kind::File { size, segments }, Some(file)) = (&entry.kind, file) else {
            encode::headers(headers, entry, 0)?;
            return self.put(headers);
        };
        self.totals.content += size;
        let whole = [Segment {
            start: 0,
            len: *size,
        }];
        let map = segments.as_ref().map(|list| holes::encode(list, *size));
        let map = map.unwrap_or_default();
        let segments = segments.as_deref().unwrap_or(&whole);
        let data: u64 = segments.iter().map(|segment| segment.len).sum();
        let stored = map.len() as u64 + data;
        encode::headers(headers, entry, stored)?;
        self.put(headers)?;
        self.put(&map)?;
        for &segment in segments {
            self.copy(file, segment, entry)?;
        }
        headers.clear();
        encode::pad(headers, stored);
        self.put(headers)
    }

    /// Copies a stretch of a file.
    fn copy(&mut self, file: BorrowedFd<'_>, segment: Segment, entry: &Entry) -> Result<()> {
        let (mut at, end) = (segment.start, segment.start + segment.len);
        while at < end {
            if self.filled == self.buffer.len() {
                self.flush()?;
            }
            let room = &mut self.buffer[self.filled..];
            let wanted = (room.len() as u64).min(end - at) as usize;
            let got = rustix::io::pread(file, &mut room[..wanted], at)
                .context(|| format!("read {}", entry.path))?;
            if got == 0 {
                return Err(Error::new(
                    ErrorKind::Obstacle,
                    format!(
                        "{} cannot be captured: it shrank while it was read",
                        entry.path
                    ),
                ));
            }
            self.filled += got;
            at += got as u64;
        }
        Ok(())
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.filled == self.buffer.len() {
                self.flush()?;
            }
            let room = &mut self.buffer[self.filled..];
            let length = room.len().min(bytes.len());
            room[..length].copy_from_slice(&bytes[..length]);
            self.filled += length;
            bytes = &bytes[length..];
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.out
            .write_all(&self.buffer[..self.filled])
            .context(|| "write rootfs.tar")?;
        self.totals.archive += self.filled as u64;
        self.filled = 0;
        Ok(())
    }
}
