//! Reads an untrusted `rootfs.tar`, or a layer made of one, entry by entry, and
//! accepts only the form that capture writes (see the module's head).

use super::decode::{self, corrupt};
use super::entry::{Entry, EntryPath, Kind, Segment};
use super::overlay::Layering;
use super::policy::Policy;
use super::source::{Forward, Source};
use super::{limits, pax};
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};

const BLOCK: u64 = 512;

/// How much a layer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Totals {
    /// Entries, marks for deleted names and opaque directories included.
    pub entries: u64,
    /// Sum of the files' sizes, holes counted, in bytes.
    pub content: u64,
    /// Size of the archive, in bytes.
    pub archive: u64,
}

/// Verifies a whole `rootfs.tar` without touching the host: its form, its
/// bounds, what `policy` says of each entry, and that it holds `expected`.
///
/// # Errors
/// `CorruptWorld` if the archive is damaged, truncated or hostile, `Obstacle`
/// or `ForeignWorld` if the policy or this rootfs forbids what is in it.
pub fn verify<R: Read + Seek>(
    tar: R,
    layering: Layering,
    policy: &Policy,
    expected: Option<&Totals>,
) -> Result<Totals> {
    let mut reader = Reader::new(tar)?;
    while let Some(entry) = reader.next()? {
        policy
            .check(&entry, layering)
            .map_err(|error| reader.locate(error))?;
    }
    match expected {
        Some(expected) if *expected != reader.totals => Err(corrupt(format!(
            "rootfs.tar holds {:?}, the world promises {expected:?}",
            reader.totals
        ))),
        _ => Ok(reader.totals),
    }
}

/// Which marks an archive may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Those of a whole layer.
    Whole,
    /// Also names that the layers below have and this world has not.
    Delta,
}

/// Reads the entries of one archive in their order.
pub(super) struct Reader<S> {
    tar: S,
    /// What the archive is called in errors.
    name: String,
    form: Form,
    /// Of the archive, or the largest number if that shows only at its end.
    length: u64,
    /// Where the next byte read comes from.
    position: u64,
    /// Where the data of the entry just read begins.
    data: u64,
    /// Where the next header is.
    next_header: u64,
    totals: Totals,
    order: Order,
}

impl<R: Read + Seek> Reader<BufReader<R>> {
    /// Begins at the start of a world's `rootfs.tar`, which has to be of whole
    /// blocks.
    pub fn new(mut tar: R) -> Result<Self> {
        let length = tar.seek(SeekFrom::End(0)).context(|| "read rootfs.tar")?;
        tar.rewind().context(|| "read rootfs.tar")?;
        let tar = BufReader::with_capacity(64 << 10, tar);
        Ok(Reader::begin(tar, length, "rootfs.tar".into(), Form::Whole))
    }
}

impl<R: Read> Reader<Forward<R>> {
    /// Begins with the next byte of a stream that is called `name` in errors.
    pub fn stream(tar: R, name: String, form: Form) -> Self {
        Reader::begin(Forward::new(tar), u64::MAX, name, form)
    }
}

impl<S: Source> Reader<S> {
    fn begin(tar: S, length: u64, name: String, form: Form) -> Self {
        Reader {
            tar,
            name,
            form,
            length,
            position: 0,
            data: 0,
            next_header: 0,
            totals: Totals::default(),
            order: Order::default(),
        }
    }

    /// The next entry, or `None` after the end of a whole archive.
    pub fn next(&mut self) -> Result<Option<Entry>> {
        let entry = self.read_entry().map_err(|error| self.locate(error))?;
        if let Some(entry) = &entry {
            self.totals.entries += 1;
            if let Kind::File { size, .. } = entry.kind {
                self.totals.content = self.totals.content.saturating_add(size);
            }
        } else {
            self.totals.archive = self.position;
        }
        Ok(entry)
    }

    /// What was read so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Says where in the archive something was found.
    pub fn locate(&self, error: Error) -> Error {
        let entry = self.totals.entries + 1;
        error.within(format!(
            "{}, entry {entry} before byte {}",
            self.name, self.position
        ))
    }

    fn read_entry(&mut self) -> Result<Option<Entry>> {
        self.skip_to(self.next_header)?;
        let mut body = Vec::new();
        let mut block = self.read_block()?;
        if block == [0; 512] {
            return self.finish().map(|()| None);
        }
        let mut header = decode::header(&block)?;
        if header.entry_type() == tar::EntryType::XHeader {
            body = self.read_records(header)?;
            block = self.read_block()?;
            header = decode::header(&block)?;
        }
        let decoded = decode::entry(header, &body)?;
        let end = self.position + decoded.stored;
        if end > self.length {
            return Err(truncated());
        }
        self.next_header = end.next_multiple_of(BLOCK);
        let mut entry = decoded.entry;
        if decoded.sparse {
            self.read_map(&mut entry, decoded.stored)
                .map_err(|error| error.within(&entry.path))?;
        }
        self.data = self.position;
        if self.totals.entries >= limits::ENTRIES {
            return Err(corrupt("too many entries"));
        }
        if entry.kind == Kind::Removed && self.form == Form::Whole {
            return Err(corrupt(format!(
                "{}: a mark that only a delta layer may hold",
                entry.path
            )));
        }
        self.order.admit(&entry)?;
        Ok(Some(entry))
    }

    /// The archive ends with two blocks of zeros, and nothing after them.
    fn finish(&mut self) -> Result<()> {
        let zeros = self.read_block()? == [0; 512];
        let ended = self.tar.fill_buf().map(<[u8]>::is_empty);
        if !zeros || !ended.map_err(|error| self.failed(error))? {
            return Err(corrupt("the archive goes on after its end"));
        }
        if self.totals.entries == 0 {
            return Err(corrupt("the archive has no root directory"));
        }
        Ok(())
    }

    fn read_records(&mut self, header: &tar::Header) -> Result<Vec<u8>> {
        let size = header.size().map_err(|_| corrupt("a malformed size"))?;
        if size > limits::PAX_BODY as u64 {
            return Err(corrupt("PAX records beyond the allowed size"));
        }
        let mut body = vec![0; size as usize];
        self.read_exact(&mut body)?;
        self.skip_to(self.position.next_multiple_of(BLOCK))?;
        Ok(body)
    }

    /// Reads the map before a sparse file's data.
    fn read_map(&mut self, entry: &mut Entry, stored: u64) -> Result<()> {
        let Kind::File { size, segments } = &mut entry.kind else {
            return Err(corrupt("a sparse map of what is no file"));
        };
        let bad = || corrupt("a malformed sparse map");
        let begin = self.position;
        let count = self.read_line()?;
        if count > limits::SEGMENTS as u64 + 1 {
            return Err(corrupt("too many holes"));
        }
        let mut map = Vec::new();
        let (mut end, mut data) = (0u64, 0u64);
        for _ in 0..count {
            let (start, len) = (self.read_line()?, self.read_line()?);
            let after = start.checked_add(len).ok_or_else(bad)?;
            if start < end || after > *size {
                return Err(bad());
            }
            end = after;
            data += len;
            if len > 0 {
                map.push(Segment { start, len });
            }
        }
        let head = (self.position - begin).next_multiple_of(BLOCK);
        if head.checked_add(data) != Some(stored) {
            return Err(bad());
        }
        self.skip_to(begin + head)?;
        *segments = Some(map);
        Ok(())
    }

    /// One line of a sparse map: a decimal number.
    fn read_line(&mut self) -> Result<u64> {
        let mut line = Vec::new();
        let read = self.tar.by_ref().take(21).read_until(b'\n', &mut line);
        read.map_err(|error| self.failed(error))?;
        self.position += line.len() as u64;
        line.strip_suffix(b"\n")
            .and_then(pax::number)
            .ok_or_else(|| corrupt("a malformed sparse map"))
    }

    /// Hands over the data of the entry just read, stretch by stretch: where
    /// it belongs in the file, and the bytes. `each` says whether to go on.
    /// `buffer` is scratch space.
    pub fn data(
        &mut self,
        entry: &Entry,
        buffer: &mut [u8],
        mut each: impl FnMut(u64, &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let Kind::File { size, segments } = &entry.kind else {
            return Ok(());
        };
        let whole = [Segment {
            start: 0,
            len: *size,
        }];
        for segment in segments.as_deref().unwrap_or(&whole) {
            let (mut at, end) = (segment.start, segment.start + segment.len);
            while at < end {
                let length = (end - at).min(buffer.len() as u64) as usize;
                let chunk = &mut buffer[..length];
                self.read_exact(chunk)?;
                if !each(at, chunk)? {
                    return Ok(());
                }
                at += length as u64;
            }
        }
        Ok(())
    }

    /// The next bytes of the data of the entry just read, of which there are
    /// [`Entry::data`].
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.read_exact(buffer).map_err(|error| self.locate(error))
    }

    /// Lets [`Reader::data`] begin anew with the same entry.
    pub fn data_again(&mut self) -> Result<()> {
        self.skip_to(self.data)
    }

    fn read_block(&mut self) -> Result<[u8; 512]> {
        let mut block = [0; 512];
        self.read_exact(&mut block)?;
        Ok(block)
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<()> {
        let read = self.tar.read_exact(buffer);
        read.map_err(|error| self.failed(error))?;
        self.position += buffer.len() as u64;
        Ok(())
    }

    /// Goes on at `position`, which is near in what can go back.
    fn skip_to(&mut self, position: u64) -> Result<()> {
        if position > self.length {
            return Err(truncated());
        }
        let distance = position.wrapping_sub(self.position) as i64;
        let skipped = self.tar.skip(distance);
        skipped.map_err(|error| self.failed(error))?;
        self.position = position;
        Ok(())
    }

    fn failed(&self, error: std::io::Error) -> Error {
        unreadable(&self.name, error)
    }
}

/// Tells what the operating system says from what a decompressor says.
pub(super) fn unreadable(name: &str, error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        return truncated();
    }
    let doing = format!("read {name}");
    match error.raw_os_error() {
        Some(_) => Err::<(), _>(error).context(|| doing).unwrap_err(),
        None => Error::caused_by(ErrorKind::CorruptWorld, doing, error),
    }
}

fn truncated() -> Error {
    Error::new(
        ErrorKind::CorruptWorld,
        "the archive is truncated; take another copy of the world",
    )
}

/// Holds entries to their order: each after the one before, each in a
/// directory whose entry came first.
#[derive(Default)]
struct Order {
    last: Option<EntryPath>,
    /// Lengths of the paths of the directories that `last` is in, or is.
    open: Vec<usize>,
    may_be_opaque: bool,
    /// Hashes, with a secret key, of paths that a hardlink may name. A false
    /// match only means that making the link fails later.
    linkable: HashSet<u64>,
    hasher: RandomState,
}

impl Order {
    fn admit(&mut self, entry: &Entry) -> Result<()> {
        let path = &entry.path;
        let bad = |why: &str| Err(corrupt(format!("{path}: {why}")));
        if entry.kind == Kind::Opaque {
            let last = self.last.as_ref() == Some(path);
            return match std::mem::take(&mut self.may_be_opaque) && last {
                true => Ok(()),
                false => bad("an opaque mark that does not follow its directory"),
            };
        }
        match &self.last {
            None if path.is_root() && entry.kind == Kind::Directory => {}
            None => return bad("comes before the root directory"),
            Some(last) if last.order(path).is_lt() => self.enter_parent(path)?,
            Some(_) => return bad("occurs twice or out of order"),
        }
        self.may_be_opaque = entry.kind == Kind::Directory;
        match &entry.kind {
            Kind::Directory => self.open.push(path.0.len()),
            Kind::Whiteout | Kind::Removed => {}
            Kind::Hardlink { target } if !self.linkable.contains(&self.hash(target)) => {
                return bad("a hardlink to what is not in the archive before it");
            }
            _ => {
                self.linkable.insert(self.hash(path));
            }
        }
        self.last = Some(path.clone());
        Ok(())
    }

    /// Leaves directories until the one that `path` is in.
    fn enter_parent(&mut self, path: &EntryPath) -> Result<()> {
        let parent = path.split().0;
        let last = self.last.as_ref().map_or(&[][..], |last| &last.0);
        while let Some(&length) = self.open.last() {
            if last[..length] == *parent {
                return Ok(());
            }
            self.open.pop();
        }
        Err(corrupt(format!(
            "{path}: in a directory that has no entry before it"
        )))
    }

    fn hash(&self, path: &EntryPath) -> u64 {
        self.hasher.hash_one(&path.0)
    }
}
