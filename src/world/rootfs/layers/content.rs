//! The content of a file as it is read, holes and all.

use crate::Result;
use crate::world::rootfs::entry::{Entry, Kind, Segment};

/// How much is read at once, in bytes.
const STEP: u64 = 64 << 10;

/// A file whose data come one after the other.
pub(super) struct Content {
    size: u64,
    at: u64,
    /// The stretches of data.
    segments: Vec<Segment>,
    /// The stretch that `at` is in or before.
    next: usize,
    buffer: Vec<u8>,
}

impl Content {
    /// Of an entry that is a file.
    pub fn of(entry: &Entry) -> Option<Content> {
        let Kind::File { size, segments } = &entry.kind else {
            return None;
        };
        let whole = Segment {
            start: 0,
            len: *size,
        };
        Some(Content {
            size: *size,
            at: 0,
            segments: segments.clone().unwrap_or_else(|| vec![whole]),
            next: 0,
            buffer: vec![0; STEP.min(*size) as usize],
        })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many bytes to read next from this and `other`, which are equally long and were
    /// read equally far: all of them data, or all of them a hole. Nothing at the end.
    pub fn step(&self, other: &Content) -> Option<u64> {
        let length = self.stretch().min(other.stretch()).min(STEP);
        (length > 0).then_some(length)
    }

    /// The next `length` bytes, as [`Content::step`] said. `data` reads those that are stored.
    pub fn read(
        &mut self,
        length: u64,
        data: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<&[u8]> {
        let buffer = &mut self.buffer[..length as usize];
        match self.segments.get(self.next) {
            Some(segment) if segment.start <= self.at => data(buffer)?,
            _ => buffer.fill(0),
        }
        self.at += length;
        while let Some(segment) = self.segments.get(self.next)
            && segment.start + segment.len <= self.at
        {
            self.next += 1;
        }
        Ok(buffer)
    }

    /// How long it goes on as it does here.
    fn stretch(&self) -> u64 {
        let end = match self.segments.get(self.next) {
            Some(segment) if segment.start <= self.at => segment.start + segment.len,
            Some(segment) => segment.start,
            None => self.size,
        };
        end - self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::rootfs::entry::EntryPath;
    use proptest::prelude::*;

    fn file(size: u64, segments: Option<Vec<(u64, u64)>>) -> Entry {
        let segments = segments.map(|list| {
            let segments = list.into_iter();
            segments
                .map(|(start, len)| Segment { start, len })
                .collect()
        });
        Entry::mark(EntryPath::default(), Kind::File { size, segments })
    }

    /// All bytes, read in step with a file without holes.
    fn read(entry: &Entry, stored: &[u8]) -> Vec<u8> {
        let mut content = Content::of(entry).unwrap();
        let mut other = Content::of(&file(content.size(), None)).unwrap();
        let (mut all, mut stored) = (Vec::new(), stored);
        while let Some(length) = content.step(&other) {
            let read = content.read(length, |buffer| {
                let (now, rest) = stored.split_at(buffer.len());
                buffer.copy_from_slice(now);
                stored = rest;
                Ok(())
            });
            all.extend(read.unwrap());
            other.read(length, |_| Ok(())).unwrap();
        }
        assert!(stored.is_empty());
        all
    }

    #[test]
    fn the_ends_of_stretches() {
        assert_eq!(read(&file(0, None), b""), b"");
        assert_eq!(read(&file(3, Some(vec![])), b""), [0; 3]);
        assert_eq!(read(&file(3, None), b"abc"), b"abc");
        assert_eq!(read(&file(4, Some(vec![(0, 1), (3, 1)])), b"ab"), b"a\0\0b");
        let long = vec![7; 200_000];
        assert!(read(&file(200_000, None), &long) == long);
    }

    proptest! {
        #[test]
        fn any_holes(gaps in prop::collection::vec((0u64..99_999, 1u64..99_999), 0..6), tail in 0u64..9) {
            let (mut at, mut list, mut stored, mut whole) = (0, vec![], vec![], vec![]);
            for (number, (gap, len)) in gaps.into_iter().enumerate() {
                at += gap;
                list.push((at, len));
                whole.resize(at as usize, 0);
                at += len;
                whole.resize(at as usize, number as u8 + 1);
                stored.resize(stored.len() + len as usize, number as u8 + 1);
            }
            whole.resize((at + tail) as usize, 0);
            prop_assert!(read(&file(at + tail, Some(list)), &stored) == whole);
        }
    }
}
