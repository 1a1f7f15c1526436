//! Writes nodes as a tar in the form of `rootfs.tar`.

use super::node::Node;
use crate::Result;
use crate::error::IoContext;
use crate::world::rootfs::decode::corrupt;
use crate::world::rootfs::entry::{Entry, Kind};
use crate::world::rootfs::{encode, holes};
use std::io::Write;

/// An archive being written.
pub(super) struct Archive<W> {
    out: W,
    /// How long it may become, in bytes.
    limit: u64,
    written: u64,
    headers: Vec<u8>,
    buffer: Vec<u8>,
}

impl<W: Write> Archive<W> {
    pub fn new(out: W, limit: u64) -> Archive<W> {
        Archive {
            out,
            limit,
            written: 0,
            headers: Vec::new(),
            buffer: vec![0; 256 << 10],
        }
    }

    /// Writes a node, whose data `read` gives.
    pub fn node(
        &mut self,
        node: &Node,
        mut read: impl FnMut(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        self.begin(&node.entry)?;
        if node.opaque {
            let path = node.entry.path.clone();
            self.begin(&Entry::mark(path, Kind::Opaque))?;
        }
        let mut left = node.entry.data();
        while left > 0 {
            let mut buffer = std::mem::take(&mut self.buffer);
            let length = left.min(buffer.len() as u64) as usize;
            read(&mut buffer[..length])?;
            self.put(&buffer[..length])?;
            self.buffer = buffer;
            left -= length as u64;
        }
        let padding = self.written.next_multiple_of(512) - self.written;
        self.put(&[0; 512][..padding as usize])
    }

    /// Writes all of an entry that comes before its data.
    pub fn begin(&mut self, entry: &Entry) -> Result<()> {
        let map = match &entry.kind {
            Kind::File {
                size,
                segments: Some(list),
            } => holes::encode(list, *size),
            _ => Vec::new(),
        };
        let mut headers = std::mem::take(&mut self.headers);
        headers.clear();
        encode::headers(&mut headers, entry, map.len() as u64 + entry.data())?;
        self.put(&headers)?;
        self.headers = headers;
        self.put(&map)
    }

    /// Ends the archive; gives what it was written to.
    pub fn finish(mut self) -> Result<W> {
        self.put(&[0; 1024])?;
        Ok(self.out)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len() as u64;
        if self.written > self.limit {
            return Err(corrupt("the rootfs layers hold more than the world says"));
        }
        self.out.write_all(bytes).context(|| "write the rootfs")
    }
}
