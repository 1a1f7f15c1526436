//! Reading a tar of unknown origin, member by member.
//!
//! Paths are plain: relative, without `..`, UTF-8, at most 512 bytes. Long names
//! and sizes of the PAX and GNU forms are understood, their records bounded. An
//! archive that ends before its closing block of zeros is truncated.

use std::collections::BTreeSet;
use std::io::{self, BufReader, Read};

use tar::{EntryType, Header, PaxExtensions};

use super::source::Section;
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

const BLOCK: u64 = 512;
/// Most members of one archive.
const MOST_MEMBERS: usize = 100_000;
/// Most bytes of a path.
const MOST_PATH: usize = 512;
/// Most bytes of the records before a member.
const MOST_RECORDS: u64 = 1 << 20;
/// What may come after the closing block, in bytes: padding to a full record.
const MOST_PADDING: u64 = 1 << 20;

/// Where the bytes come from.
pub(super) enum Input {
    /// What is not wanted can be leapt over. So many bytes long.
    File(BufReader<Section>, u64),
    Stream(Box<dyn Read + Send>),
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemberKind {
    File,
    Folder,
    /// In words.
    Other(&'static str),
}

/// One member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Without `./` before it or `/` after it; empty for the root.
    pub path: String,
    pub kind: MemberKind,
    /// Of its data, in bytes.
    pub size: u64,
    /// Where its data begin in the archive.
    pub offset: u64,
}

impl Member {
    /// Fails where it is anything but a file or a folder.
    pub fn must_be_plain(&self) -> Result<()> {
        match self.kind {
            MemberKind::File | MemberKind::Folder => Ok(()),
            MemberKind::Other(what) => Err(corrupt(format!(
                "{} is {what}: only regular files are accepted",
                self.path.escape_debug()
            ))),
        }
    }
}

/// Reads one archive.
pub(super) struct TarReader {
    input: Input,
    /// What the archive is called in errors.
    name: String,
    position: u64,
    /// Where the data of the present member end.
    data_end: u64,
    /// The archive may have so many bytes.
    most: u64,
    seen: BTreeSet<String>,
}

/// What the records before a header say of the member.
#[derive(Default)]
struct Records {
    path: Option<Vec<u8>>,
    size: Option<u64>,
}

impl TarReader {
    /// `most` bytes are read, and no more.
    pub fn new(input: Input, name: String, most: u64) -> TarReader {
        TarReader {
            input,
            name,
            position: 0,
            data_end: 0,
            most,
            seen: BTreeSet::new(),
        }
    }

    /// So many bytes more may be read: something has told of them.
    pub fn allow(&mut self, bytes: u64) {
        self.most = self.most.saturating_add(bytes);
    }

    /// The next member; `None` after the last one of a whole archive.
    pub fn next(&mut self) -> Result<Option<Member>> {
        self.next_member().map_err(|error| self.locate(error))
    }

    /// The rest of the present member's data.
    pub fn data(&mut self) -> Data<'_> {
        Data(self)
    }

    /// The whole of the present member's data, which may be `limit` bytes.
    pub fn read(&mut self, member: &Member, limit: usize) -> Result<Vec<u8>> {
        if member.size > limit as u64 {
            return Err(self.locate(corrupt(format!(
                "{} is {} bytes, at most {limit} are allowed",
                member.path, member.size
            ))));
        }
        let mut bytes = Vec::new();
        self.data()
            .read_to_end(&mut bytes)
            .map_err(|error| unreadable(&member.path, error))?;
        Ok(bytes)
    }

    /// Says in which archive something was found.
    pub fn locate(&self, error: Error) -> Error {
        error.within(&self.name)
    }

    fn next_member(&mut self) -> Result<Option<Member>> {
        let mut records = Records::default();
        loop {
            self.skip_to(self.data_end.next_multiple_of(BLOCK))?;
            let block = self.block()?;
            if block == [0; BLOCK as usize] {
                return self.end().map(|()| None);
            }
            let header = checked(&block, self.position)?;
            let kind = header.entry_type();
            let size = size_of(header)?;
            self.data_end = self.position;
            match kind {
                EntryType::XHeader | EntryType::GNULongName => {
                    let bytes = self.records(size)?;
                    records.take(kind, &bytes)?;
                }
                EntryType::XGlobalHeader | EntryType::GNULongLink => drop(self.records(size)?),
                _ => return self.member(header, size, records).map(Some),
            }
        }
    }

    fn member(&mut self, header: &Header, size: u64, records: Records) -> Result<Member> {
        let raw = records
            .path
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let path = plain_path(&raw)?;
        let kind = kind_of(header.entry_type());
        let size = match kind {
            MemberKind::File => records.size.unwrap_or(size),
            MemberKind::Folder | MemberKind::Other(_) => 0,
        };
        let end = self.position.checked_add(size);
        self.data_end = end
            .filter(|end| *end <= i64::MAX as u64 - BLOCK)
            .ok_or_else(|| corrupt(format!("{path} has an impossible size")))?;
        if kind != MemberKind::Folder && !self.seen.insert(path.clone()) {
            return Err(corrupt(format!("{path} occurs twice")));
        }
        self.must_be_allowed(self.data_end)?;
        if self.seen.len() > MOST_MEMBERS {
            return Err(corrupt(format!(
                "more than {MOST_MEMBERS} members are not allowed"
            )));
        }
        Ok(Member {
            path,
            kind,
            size,
            offset: self.position,
        })
    }

    /// The data of a member that tells of the next one.
    fn records(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MOST_RECORDS {
            return Err(corrupt(format!(
                "records of {size} bytes, {MOST_RECORDS} are allowed"
            )));
        }
        let mut bytes = vec![0; size as usize];
        self.fill(&mut bytes)?;
        self.data_end = self.position;
        Ok(bytes)
    }

    fn must_be_allowed(&self, position: u64) -> Result<()> {
        match position <= self.most {
            true => Ok(()),
            false => Err(corrupt(format!(
                "it unpacks to more than {} bytes: decompress it first if you trust it",
                self.most
            ))),
        }
    }

    fn block(&mut self) -> Result<[u8; BLOCK as usize]> {
        self.must_be_allowed(self.position)?;
        let mut block = [0; BLOCK as usize];
        self.fill(&mut block)?;
        Ok(block)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.input
            .read_exact(buffer)
            .map_err(|error| unreadable("the archive", error))?;
        self.position += buffer.len() as u64;
        Ok(())
    }

    fn skip_to(&mut self, position: u64) -> Result<()> {
        let distance = position - self.position;
        match &mut self.input {
            Input::File(_, length) if position > *length => return Err(truncated()),
            Input::File(file, _) => file
                .seek_relative(distance as i64)
                .context(|| "read the archive")?,
            Input::Stream(stream) => {
                let skipped = io::copy(&mut stream.take(distance), &mut io::sink())
                    .map_err(|error| unreadable("the archive", error))?;
                if skipped != distance {
                    return Err(truncated());
                }
            }
        }
        self.position = position;
        Ok(())
    }

    /// Nothing but zeros comes after the closing block; what compressed them is whole.
    fn end(&mut self) -> Result<()> {
        let mut rest = Vec::new();
        let input: &mut dyn Read = &mut self.input;
        input
            .take(MOST_PADDING + 1)
            .read_to_end(&mut rest)
            .map_err(|error| unreadable("the archive", error))?;
        match rest.len() as u64 <= MOST_PADDING && rest.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(corrupt("the archive goes on after its end")),
        }
    }
}

/// The data of a member.
pub(super) struct Data<'a>(&'a mut TarReader);

impl Read for Data<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.0.data_end - self.0.position;
        let most = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if most == 0 {
            // A decompressor that has no room takes that for a fault.
            return Ok(0);
        }
        let count = self.0.input.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.0.position += count as u64;
        Ok(count)
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Input::File(file, _) => file.read(buffer),
            Input::Stream(stream) => stream.read(buffer),
        }
    }
}

impl Records {
    fn take(&mut self, kind: EntryType, bytes: &[u8]) -> Result<()> {
        if kind == EntryType::GNULongName {
            let end = bytes.iter().position(|byte| *byte == 0);
            self.path = Some(bytes[..end.unwrap_or(bytes.len())].to_vec());
            return Ok(());
        }
        for record in PaxExtensions::new(bytes) {
            let record = record.map_err(|_| corrupt("a malformed PAX record"))?;
            match record.key_bytes() {
                b"path" => self.path = Some(record.value_bytes().to_vec()),
                b"size" => {
                    let size = record.value().ok().and_then(|text| text.parse().ok());
                    self.size = Some(size.ok_or_else(|| corrupt("a malformed size"))?);
                }
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(corrupt("a sparse file: only plain ones are accepted"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// What the system says, told from what a decompressor or the archive's end says.
pub(super) fn unreadable(what: &str, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return truncated();
    }
    match error.raw_os_error() {
        Some(_) => Err::<(), _>(error)
            .context(|| format!("read {what}"))
            .unwrap_err(),
        None => Error::caused_by(ErrorKind::CorruptWorld, format!("read {what}"), error),
    }
}

pub(super) fn corrupt(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::CorruptWorld, what)
}

fn truncated() -> Error {
    corrupt("it is truncated: fetch or export it again")
}

fn checked(block: &[u8; BLOCK as usize], position: u64) -> Result<&Header> {
    let header = Header::from_byte_slice(block);
    // The checksum counts its own eight bytes as spaces.
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| match at {
            148..156 => 32,
            _ => u32::from(*byte),
        })
        .sum();
    match header.cksum() {
        Ok(told) if told == sum => Ok(header),
        _ if position == BLOCK => Err(corrupt("it is no tar archive, or its beginning is damaged")),
        _ => Err(corrupt(format!(
            "the header before byte {position} is damaged"
        ))),
    }
}

fn size_of(header: &Header) -> Result<u64> {
    header
        .entry_size()
        .ok()
        .filter(|size| *size <= i64::MAX as u64)
        .ok_or_else(|| corrupt("a malformed size"))
}

fn kind_of(kind: EntryType) -> MemberKind {
    match kind {
        EntryType::Regular => MemberKind::File,
        EntryType::Directory => MemberKind::Folder,
        EntryType::Symlink => MemberKind::Other("a symbolic link"),
        EntryType::Link => MemberKind::Other("a hard link"),
        EntryType::Char | EntryType::Block => MemberKind::Other("a device"),
        EntryType::Fifo => MemberKind::Other("a fifo"),
        _ => MemberKind::Other("of a special kind"),
    }
}

/// A path that leads nowhere but down.
fn plain_path(raw: &[u8]) -> Result<String> {
    let shown = || {
        let shown: Vec<u8> = raw.iter().copied().take(80).collect();
        shown.escape_ascii().to_string()
    };
    let bad = |why: &str| corrupt(format!("the member {:?} {why}", shown()));
    let text = std::str::from_utf8(raw).map_err(|_| bad("has a name that is not UTF-8"))?;
    if text.len() > MOST_PATH {
        return Err(bad("has too long a name"));
    }
    if text.starts_with('/') || text.contains('\0') {
        return Err(bad("leads out of the archive"));
    }
    let names: Vec<&str> = text
        .split('/')
        .filter(|name| !name.is_empty() && *name != ".")
        .collect();
    match names.contains(&"..") {
        true => Err(bad("leads out of the archive")),
        false => Ok(names.join("/")),
    }
}

#[cfg(test)]
mod tests;
