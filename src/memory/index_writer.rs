//! Writes a pages index (see [`index`](super::index)) as its parts become known.

use std::io::Write;

use super::index::{HEAD, PackRef};
use super::place::{Place, Run};
use super::varint;
use crate::Result;
use crate::criu::pagemap::{Extent, Space};
use crate::error::IoContext;

/// How much is gathered before it is written, in bytes.
const BUFFER: usize = 64 << 10;

/// Writes an index; the calls follow the order of its parts.
pub struct IndexWriter<W: Write> {
    out: W,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    run: Option<Run>,
}

impl<W: Write> IndexWriter<W> {
    /// Begins an index of `files` pages files.
    pub fn new(out: W, packs: &[PackRef], files: usize) -> Result<IndexWriter<W>> {
        let mut writer = IndexWriter {
            out,
            hasher: blake3::Hasher::new(),
            buffer: HEAD.to_vec(),
            run: None,
        };
        writer.put(packs.len() as u64)?;
        for pack in packs {
            writer.buffer.extend(pack.digest.as_bytes());
            writer.put(pack.pages.into())?;
        }
        writer.put(files as u64)?;
        Ok(writer)
    }

    /// Begins the section of a pages file that `spaces` address spaces refer to.
    pub fn file(&mut self, id: u32, pages: u64, spaces: usize) -> Result<()> {
        self.end_run()?;
        self.put(id.into())?;
        self.put(pages)?;
        self.put(spaces as u64)
    }

    /// An address space of the file, with the number of its runs of addresses.
    pub fn space(
        &mut self,
        space: Space,
        count: u64,
        extents: impl Iterator<Item = Result<Extent>>,
    ) -> Result<()> {
        let (kind, id) = match space {
            Space::Process(id) => (0, id),
            Space::Shared(id) => (1, id),
        };
        for number in [kind, id, count] {
            self.put(number)?;
        }
        let mut end = 0;
        for extent in extents {
            let extent = extent?;
            self.put(extent.page - end)?;
            self.put(extent.count)?;
            end = extent.page + extent.count;
        }
        Ok(())
    }

    /// The next pages of the file.
    pub fn run(&mut self, run: Run) -> Result<()> {
        if let Some(before) = &mut self.run
            && before.join(run)
        {
            return Ok(());
        }
        self.end_run()?;
        self.run = Some(run);
        Ok(())
    }

    /// Ends the index; returns what it was written to.
    pub fn finish(mut self) -> Result<W> {
        self.end_run()?;
        self.flush()?;
        let sum = *self.hasher.finalize().as_bytes();
        self.out
            .write_all(&sum)
            .context(|| "write the pages index")?;
        Ok(self.out)
    }

    fn end_run(&mut self) -> Result<()> {
        let Some(run) = self.run.take() else {
            return Ok(());
        };
        let count = u64::from(run.count) << 1;
        match run.place {
            Place::Zero => self.put(count),
            Place::Pack { pack, page } => {
                self.put(count | 1)?;
                self.put(pack.into())?;
                self.put(page.into())
            }
        }
    }

    fn put(&mut self, number: u64) -> Result<()> {
        varint::put(&mut self.buffer, number);
        match self.buffer.len() < BUFFER {
            true => Ok(()),
            false => self.flush(),
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.hasher.update(&self.buffer);
        self.out
            .write_all(&self.buffer)
            .context(|| "write the pages index")?;
        self.buffer.clear();
        Ok(())
    }
}
