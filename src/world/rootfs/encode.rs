//! From an entry to the headers of a tar.

use super::entry::{Entry, EntryPath, Kind, Mtime};
use super::{limits, pax};
use crate::{Error, ErrorKind, Result};
use tar::{EntryType, Header};

/// The key of the record that says what an entry is that a tar cannot hold.
pub(super) const TYPE_KEY: &[u8] = b"WORLDSHIM.type";
pub(super) const TYPE_SOCKET: &[u8] = b"socket";

/// The key of the record of a whiteout that is none of the world's own.
pub(super) const WHITEOUT_KEY: &[u8] = b"WORLDSHIM.whiteout";
pub(super) const WHITEOUT_DELTA: &[u8] = b"delta";

/// How an opaque directory is marked.
pub(super) const OPAQUE_NAME: &[u8] = b".wh..wh..opq";
/// What comes before a deleted name.
pub(super) const WHITEOUT_PREFIX: &[u8] = b".wh.";

const MAX_ID: u32 = 0o7777777;
const MAX_OCTAL_11: u64 = 0o77777777777;

/// Appends the headers of `entry`; `stored` is how many bytes follow them.
///
/// # Errors
/// `Obstacle` if the entry is beyond what a layer can say.
pub(super) fn headers(out: &mut Vec<u8>, entry: &Entry, stored: u64) -> Result<()> {
    let mut records = Vec::new();
    let header = header(entry, stored, &mut records)?;
    if records.len() > limits::PAX_BODY {
        return Err(Error::new(
            ErrorKind::Obstacle,
            format!(
                "{} cannot be captured: its names and attributes take {} bytes, {} are allowed",
                entry.path,
                records.len(),
                limits::PAX_BODY
            ),
        ));
    }
    if !records.is_empty() {
        let mut extension = Header::new_ustar();
        put_name(&mut extension, b"././@PaxHeader");
        extension.set_entry_type(EntryType::XHeader);
        extension.set_mode(0o644);
        extension.set_uid(0);
        extension.set_gid(0);
        extension.set_mtime(0);
        extension.set_size(records.len() as u64);
        extension.set_cksum();
        out.extend_from_slice(extension.as_bytes());
        out.extend_from_slice(&records);
        pad(out, records.len() as u64);
    }
    out.extend_from_slice(header.as_bytes());
    Ok(())
}

/// Appends what is missing to a whole block after `length` bytes.
pub(super) fn pad(out: &mut Vec<u8>, length: u64) {
    let missing = length.next_multiple_of(512) - length;
    out.resize(out.len() + missing as usize, 0);
}

fn header(entry: &Entry, stored: u64, records: &mut Vec<u8>) -> Result<Header> {
    let mut header = Header::new_ustar();
    header.set_entry_type(entry_type(&entry.kind));
    let name = archive_name(entry)?;
    let link = match &entry.kind {
        Kind::Symlink { target } => target.as_slice(),
        Kind::Hardlink { target } => &target.0,
        _ => &[],
    };
    let sparse_size = match entry.kind {
        Kind::File {
            size,
            segments: Some(_),
        } => Some(size),
        _ => None,
    };
    let long_name = sparse_size.is_some() || name.len() > 100;
    let long_link = link.len() > 100;
    let not_text = |bytes: &[u8]| std::str::from_utf8(bytes).is_err();
    if (long_name && not_text(&name)) || (long_link && not_text(link)) {
        pax::push(records, b"hdrcharset", b"BINARY");
    }
    if let Some(size) = sparse_size {
        put_name(&mut header, b"GNUSparseFile.0/file");
        pax::push(records, b"GNU.sparse.major", b"1");
        pax::push(records, b"GNU.sparse.minor", b"0");
        pax::push(records, b"GNU.sparse.name", &name);
        push_number(records, b"GNU.sparse.realsize", size);
    } else {
        put_name(&mut header, &name);
        if long_name {
            pax::push(records, b"path", &name);
        }
    }
    if long_link {
        pax::push(records, b"linkpath", link);
    }
    put(&mut as_ustar(&mut header).linkname, link);
    numbers(&mut header, entry, stored, records);
    if entry.kind == Kind::Socket {
        pax::push(records, TYPE_KEY, TYPE_SOCKET);
    }
    if entry.kind == Kind::Removed {
        pax::push(records, WHITEOUT_KEY, WHITEOUT_DELTA);
    }
    for (name, value) in &entry.meta.xattrs {
        pax::push_xattr(records, name, value);
    }
    header.set_cksum();
    Ok(header)
}

fn numbers(header: &mut Header, entry: &Entry, stored: u64, records: &mut Vec<u8>) {
    let meta = &entry.meta;
    header.set_mode(meta.mode);
    header.set_uid(small(records, b"uid", meta.uid.into(), MAX_ID.into()));
    header.set_gid(small(records, b"gid", meta.gid.into(), MAX_ID.into()));
    header.set_size(small(records, b"size", stored, MAX_OCTAL_11));
    let seconds = u64::try_from(meta.mtime.seconds).unwrap_or(u64::MAX);
    let fits = meta.mtime.nanos == 0 && seconds <= MAX_OCTAL_11;
    if !fits {
        pax::push(records, b"mtime", decimal(meta.mtime).as_bytes());
    }
    header.set_mtime(if seconds <= MAX_OCTAL_11 { seconds } else { 0 });
    let ustar = as_ustar(header);
    let (major, minor) = match entry.kind {
        Kind::CharDevice(device) | Kind::BlockDevice(device) => (device.major, device.minor),
        _ => (0, 0),
    };
    ustar.set_device_major(major);
    ustar.set_device_minor(minor);
}

/// `number` if the header's field holds it, or else 0 and a record.
fn small(records: &mut Vec<u8>, key: &[u8], number: u64, max: u64) -> u64 {
    if number <= max {
        return number;
    }
    push_number(records, key, number);
    0
}

fn push_number(records: &mut Vec<u8>, key: &[u8], number: u64) {
    pax::push(records, key, number.to_string().as_bytes());
}

/// A time as PAX writes it: the sign belongs to the whole number.
fn decimal(time: Mtime) -> String {
    let Mtime { seconds, nanos } = time;
    let (sign, whole, fraction) = if seconds < 0 && nanos > 0 {
        ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanos)
    } else if seconds < 0 {
        ("-", seconds.unsigned_abs(), 0)
    } else {
        ("", seconds.unsigned_abs(), nanos)
    };
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    let text = format!("{sign}{whole}.{fraction:09}");
    text.trim_end_matches('0').to_string()
}

fn entry_type(kind: &Kind) -> EntryType {
    match kind {
        Kind::Directory => EntryType::Directory,
        Kind::File { .. } | Kind::Socket => EntryType::Regular,
        Kind::Whiteout | Kind::Removed | Kind::Opaque => EntryType::Regular,
        Kind::Symlink { .. } => EntryType::Symlink,
        Kind::Hardlink { .. } => EntryType::Link,
        Kind::CharDevice(_) => EntryType::Char,
        Kind::BlockDevice(_) => EntryType::Block,
        Kind::Fifo => EntryType::Fifo,
    }
}

/// What the entry is called in a layer's archive.
fn archive_name(entry: &Entry) -> Result<Vec<u8>> {
    let path = &entry.path;
    let (parent, name) = path.split();
    if entry.kind != Kind::Opaque && name.starts_with(WHITEOUT_PREFIX) {
        return Err(Error::new(
            ErrorKind::Obstacle,
            format!(
                "{path} cannot be captured: in an image layer, names that begin with .wh. mean deleted files"
            ),
        ));
    }
    let marked = |dir: &[u8], mark: &[u8], rest: &[u8]| {
        let name = [mark, rest].concat();
        EntryPath(dir.to_vec()).join(&name).0
    };
    Ok(match entry.kind {
        Kind::Opaque => marked(&path.0, OPAQUE_NAME, b""),
        Kind::Whiteout | Kind::Removed => marked(parent, WHITEOUT_PREFIX, name),
        Kind::Directory if path.is_root() => b"./".to_vec(),
        Kind::Directory => [&path.0, &b"/"[..]].concat(),
        _ => path.0.clone(),
    })
}

fn put_name(header: &mut Header, name: &[u8]) {
    put(&mut as_ustar(header).name, name);
}

/// As much of `bytes` as the field holds; the rest of it stays NUL.
fn put(field: &mut [u8], bytes: &[u8]) {
    let length = bytes.len().min(field.len());
    field[..length].copy_from_slice(&bytes[..length]);
}

fn as_ustar(header: &mut Header) -> &mut tar::UstarHeader {
    header.as_ustar_mut().expect("made by Header::new_ustar")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_carry_one_sign() {
        let text = |seconds, nanos| decimal(Mtime { seconds, nanos });
        assert_eq!(text(-2, 500_000_000), "-1.5");
        assert_eq!(text(-1, 999_999_999), "-0.000000001");
        assert_eq!(text(-7, 0), "-7");
        assert_eq!(text(1, 20), "1.00000002");
        assert_eq!(text(i64::MIN, 0), "-9223372036854775808");
    }
}
