//! The entries of one archive, a directory and its opaque mark as one.

use crate::Result;
use crate::world::rootfs::entry::{Entry, Kind};
use crate::world::rootfs::reader::Reader;
use crate::world::rootfs::source::Source;

/// An entry, and whether it is an opaque directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub entry: Entry,
    pub opaque: bool,
}

impl Node {
    pub fn is_dir(&self) -> bool {
        self.entry.kind == Kind::Directory
    }
}

/// Reads nodes in their order.
pub(super) struct Nodes<S> {
    reader: Reader<S>,
    /// Read while looking for a directory's mark.
    ahead: Option<Entry>,
    ended: bool,
}

impl<S: Source> Nodes<S> {
    pub fn new(reader: Reader<S>) -> Nodes<S> {
        Nodes {
            reader,
            ahead: None,
            ended: false,
        }
    }

    /// The next node, or `None` after the end of a whole archive.
    pub fn next(&mut self) -> Result<Option<Node>> {
        let Some(entry) = self.entry()? else {
            return Ok(None);
        };
        let mut node = Node {
            entry,
            opaque: false,
        };
        if node.is_dir() {
            self.ahead = self.entry()?;
            let mark = self.ahead.take_if(|next| next.kind == Kind::Opaque);
            node.opaque = mark.is_some();
        }
        Ok(Some(node))
    }

    /// The next bytes of the data of the node just read.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.reader.read_data(buffer)
    }

    /// Size of the archive, once its end was reached.
    pub fn size(&self) -> u64 {
        self.reader.totals().archive
    }

    fn entry(&mut self) -> Result<Option<Entry>> {
        if self.ended || self.ahead.is_some() {
            return Ok(self.ahead.take());
        }
        let entry = self.reader.next()?;
        self.ended = entry.is_none();
        Ok(entry)
    }
}
