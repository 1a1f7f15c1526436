//! From one header and its records, both untrusted, to an entry.

use super::encode::{
    OPAQUE_NAME, TYPE_KEY, TYPE_SOCKET, WHITEOUT_DELTA, WHITEOUT_KEY, WHITEOUT_PREFIX,
};
use super::entry::{Device, Entry, EntryPath, Kind, Meta, Mtime, Xattr};
use super::{limits, pax};
use crate::{Error, ErrorKind, Result};
use tar::{EntryType, Header};

/// An entry, and how its data is stored.
#[derive(Debug)]
pub(super) struct Decoded {
    pub entry: Entry,
    /// Bytes that follow the header.
    pub stored: u64,
    /// The data begins with a sparse map, which is not in `entry` yet.
    pub sparse: bool,
}

/// The records of an entry, by key.
#[derive(Debug, Default)]
struct Records<'a> {
    path: Option<&'a [u8]>,
    linkpath: Option<&'a [u8]>,
    size: Option<&'a [u8]>,
    uid: Option<&'a [u8]>,
    gid: Option<&'a [u8]>,
    mtime: Option<&'a [u8]>,
    sparse_major: Option<&'a [u8]>,
    sparse_minor: Option<&'a [u8]>,
    sparse_name: Option<&'a [u8]>,
    sparse_size: Option<&'a [u8]>,
    charset: Option<&'a [u8]>,
    special: Option<&'a [u8]>,
    whiteout: Option<&'a [u8]>,
    xattrs: Vec<Xattr>,
}

pub(super) fn corrupt(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::CorruptWorld, what)
}

/// Reads a block as a header; its checksum and kind are verified.
pub(super) fn header(block: &[u8; 512]) -> Result<&Header> {
    let header = Header::from_byte_slice(block);
    let expected = header.cksum().map_err(|_| corrupt("no tar header"))?;
    let sum = |sum: u32, (at, &byte): (usize, &u8)| {
        sum + u32::from(if (148..156).contains(&at) { b' ' } else { byte })
    };
    if block.iter().enumerate().fold(0, sum) != expected {
        return Err(corrupt("the header's checksum is wrong"));
    }
    header
        .as_ustar()
        .ok_or_else(|| corrupt("not a POSIX tar header"))?;
    Ok(header)
}

/// What `header` and the body of the extension before it say.
pub(super) fn entry(header: &Header, body: &[u8]) -> Result<Decoded> {
    let records = Records::parse(body)?;
    let stored = number(records.size, header.size(), limits::FILE_SIZE, "size")?;
    let sparse = records.is_sparse()?;
    let name = match (sparse, records.sparse_name, records.path) {
        (true, Some(name), _) | (false, _, Some(name)) => name.to_vec(),
        (true, None, _) => return Err(corrupt("a sparse file without a name")),
        (false, ..) => header.path_bytes().into_owned(),
    };
    let is_dir = header.entry_type() == EntryType::Directory;
    let path = path(&name, is_dir)?;
    let plain = header.entry_type() == EntryType::Regular;
    if plain && path.split().1.starts_with(WHITEOUT_PREFIX) {
        if stored != 0 || sparse || !records.xattrs.is_empty() || records.special.is_some() {
            return Err(corrupt(format!("{path}: a whiteout that is not empty")));
        }
        return Ok(Decoded {
            entry: whiteout(&path, records.whiteout)?,
            stored,
            sparse,
        });
    }
    if path.split().1.starts_with(WHITEOUT_PREFIX) {
        return Err(corrupt(format!("{path}: a whiteout that is no file")));
    }
    let context = |error: Error| error.within(&path);
    let kind = kind(header, &records, stored, sparse).map_err(context)?;
    if !matches!(kind, Kind::File { .. }) && stored != 0 {
        return Err(corrupt(format!("{path}: data after what is no file")));
    }
    let meta = meta(header, records).map_err(context)?;
    Ok(Decoded {
        entry: Entry { path, kind, meta },
        stored,
        sparse,
    })
}

impl<'a> Records<'a> {
    fn parse(mut body: &'a [u8]) -> Result<Records<'a>> {
        let mut records = Records::default();
        while !body.is_empty() {
            let (key, value) = pax::take(&mut body)?;
            let slot = match key {
                b"path" => &mut records.path,
                b"linkpath" => &mut records.linkpath,
                b"size" => &mut records.size,
                b"uid" => &mut records.uid,
                b"gid" => &mut records.gid,
                b"mtime" => &mut records.mtime,
                b"hdrcharset" => &mut records.charset,
                b"GNU.sparse.major" => &mut records.sparse_major,
                b"GNU.sparse.minor" => &mut records.sparse_minor,
                b"GNU.sparse.name" => &mut records.sparse_name,
                b"GNU.sparse.realsize" => &mut records.sparse_size,
                TYPE_KEY => &mut records.special,
                WHITEOUT_KEY => &mut records.whiteout,
                _ => {
                    records.xattrs.push(xattr(key, value)?);
                    continue;
                }
            };
            if slot.replace(value).is_some() {
                return Err(corrupt("a PAX record occurs twice"));
            }
        }
        if !records.xattrs.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(corrupt("extended attributes out of order"));
        }
        Ok(records)
    }

    fn is_sparse(&self) -> Result<bool> {
        match (self.sparse_major, self.sparse_minor, self.sparse_size) {
            (None, None, None) if self.sparse_name.is_none() => Ok(false),
            (Some(b"1"), Some(b"0"), Some(_)) => Ok(true),
            _ => Err(corrupt("a sparse file of another format than 1.0")),
        }
    }
}

fn xattr(key: &[u8], value: &[u8]) -> Result<Xattr> {
    let Some(name) = key.strip_prefix(pax::XATTR) else {
        let key = key.escape_ascii();
        return Err(corrupt(format!("an unknown PAX record {key}")));
    };
    let name = pax::xattr_name(name);
    let ok = !name.is_empty()
        && name.len() <= limits::XATTR_NAME
        && !name.contains(&0)
        && value.len() <= limits::XATTR_VALUE;
    match ok {
        true => Ok((name, value.to_vec())),
        false => Err(corrupt("an extended attribute beyond what Linux allows")),
    }
}

/// A path in an archive, as one relative to the layer's root.
fn path(name: &[u8], is_dir: bool) -> Result<EntryPath> {
    let shown = || name[..name.len().min(200)].escape_ascii();
    let bad = |why: &str| Err(corrupt(format!("the path \"{}\" {why}", shown())));
    let mut bare = name;
    if is_dir {
        bare = bare.strip_suffix(b"/").unwrap_or(bare);
    }
    if bare == b"." && is_dir {
        return Ok(EntryPath::default());
    }
    if bare.is_empty() || bare.contains(&0) {
        return bad("is empty or holds a NUL");
    }
    for (depth, part) in bare.split(|&byte| byte == b'/').enumerate() {
        match part {
            b"" | b"." | b".." => return bad("is absolute or has an empty, . or .. component"),
            _ if part.len() > longest(part) => return bad("has a component that is too long"),
            _ if depth >= limits::DEPTH => return bad("is too deep"),
            _ => {}
        }
    }
    Ok(EntryPath(bare.to_vec()))
}

/// How long a name may be: what a whiteout deletes may be of full length.
fn longest(name: &[u8]) -> usize {
    match name.starts_with(WHITEOUT_PREFIX) {
        true => WHITEOUT_PREFIX.len() + limits::NAME,
        false => limits::NAME,
    }
}

/// The mark that a name beginning with `.wh.` is.
fn whiteout(path: &EntryPath, record: Option<&[u8]>) -> Result<Entry> {
    let (parent, name) = path.split();
    let parent = EntryPath(parent.to_vec());
    let kind = match record {
        None => Kind::Whiteout,
        Some(WHITEOUT_DELTA) if name != OPAQUE_NAME => Kind::Removed,
        Some(_) => return Err(corrupt(format!("{path}: an unknown whiteout"))),
    };
    if name == OPAQUE_NAME {
        return Ok(Entry::mark(parent, Kind::Opaque));
    }
    match &name[WHITEOUT_PREFIX.len()..] {
        b"" | b"." | b".." => Err(corrupt(format!("{path}: a whiteout of no name"))),
        hidden if hidden.starts_with(WHITEOUT_PREFIX) => {
            Err(corrupt(format!("{path}: an unknown whiteout")))
        }
        hidden => Ok(Entry::mark(parent.join(hidden), kind)),
    }
}

fn kind(header: &Header, records: &Records<'_>, stored: u64, sparse: bool) -> Result<Kind> {
    let link = || match records.linkpath {
        Some(target) => target.to_vec(),
        None => header.link_name_bytes().unwrap_or_default().into_owned(),
    };
    let kind = match header.entry_type() {
        EntryType::Regular if records.special == Some(TYPE_SOCKET) && !sparse => Kind::Socket,
        EntryType::Regular => Kind::File {
            size: match sparse {
                true => number(records.sparse_size, Ok(0), limits::FILE_SIZE, "size")?,
                false => stored,
            },
            segments: None,
        },
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => {
            let target = link();
            if target.is_empty() || target.len() > limits::SYMLINK_TARGET || target.contains(&0) {
                return Err(corrupt("a symlink's target is empty or too long"));
            }
            Kind::Symlink { target }
        }
        EntryType::Link => Kind::Hardlink {
            target: path(&link(), false)?,
        },
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char => Kind::CharDevice(device(header)?),
        EntryType::Block => Kind::BlockDevice(device(header)?),
        other => {
            let byte = other.as_byte().escape_ascii();
            return Err(corrupt(format!("an entry of the unknown type '{byte}'")));
        }
    };
    let file = matches!(kind, Kind::File { .. });
    let special = records.special.is_some() && kind != Kind::Socket;
    if (sparse && !file) || special || records.whiteout.is_some() {
        return Err(corrupt("a record that does not fit the entry's type"));
    }
    Ok(kind)
}

fn device(header: &Header) -> Result<Device> {
    // Linux packs a device number into 12 and 20 bits.
    let bounded = |number: std::io::Result<Option<u32>>, max: u32| match number {
        Ok(Some(number)) if number <= max => Ok(number),
        _ => Err(corrupt("a device number that Linux does not have")),
    };
    let device = Device {
        major: bounded(header.device_major(), 0xfff)?,
        minor: bounded(header.device_minor(), 0xf_ffff)?,
    };
    match (header.entry_type(), device) {
        // On a disk this would be a whiteout.
        (EntryType::Char, Device { major: 0, minor: 0 }) => Err(corrupt(
            "the character device 0:0, which is overlayfs's mark",
        )),
        _ => Ok(device),
    }
}

fn meta(header: &Header, records: Records<'_>) -> Result<Meta> {
    let max_id = u64::from(u32::MAX - 1);
    let id = |record, field| number(record, field, max_id, "owner").map(|id| id as u32);
    let mode = header.mode().map_err(|_| corrupt("a malformed mode"))?;
    if mode & !0o7777 != 0 {
        return Err(corrupt("mode bits that do not exist"));
    }
    Ok(Meta {
        mode,
        uid: id(records.uid, header.uid())?,
        gid: id(records.gid, header.gid())?,
        mtime: match records.mtime {
            Some(text) => time(text).ok_or_else(|| corrupt("a malformed mtime"))?,
            None => Mtime {
                seconds: number(None, header.mtime(), i64::MAX as u64, "mtime")? as i64,
                nanos: 0,
            },
        },
        xattrs: records.xattrs,
    })
}

/// A number from its record, or else from the header's field.
fn number(record: Option<&[u8]>, field: std::io::Result<u64>, max: u64, what: &str) -> Result<u64> {
    let number = match record {
        Some(digits) => pax::number(digits),
        None => field.ok(),
    };
    number
        .filter(|&number| number <= max)
        .ok_or_else(|| corrupt(format!("a malformed or too large {what}")))
}

/// A time as PAX writes it.
fn time(text: &[u8]) -> Option<Mtime> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match text.iter().position(|&byte| byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &b"0"[..]),
    };
    if fraction.len() > 9 {
        return None;
    }
    let scale = 10u64.pow(9 - fraction.len() as u32);
    let nanos = i128::from(pax::number(fraction)? * scale);
    let total = i128::from(pax::number(whole)?) * 1_000_000_000 + nanos;
    let total = if negative { -total } else { total };
    Some(Mtime {
        seconds: total.div_euclid(1_000_000_000).try_into().ok()?,
        nanos: total.rem_euclid(1_000_000_000) as u32,
    })
}
