//! PAX records: `LENGTH KEY=VALUE\n`, the length counting itself.
//!
//! The tar crate splits records at newlines, which values may hold; so these
//! few lines are ours.

use super::limits;
use crate::{Error, ErrorKind, Result};

/// The prefix of an extended attribute's key.
pub(super) const XATTR: &[u8] = b"SCHILY.xattr.";

/// Appends one record.
pub(super) fn push(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut digits = 1;
    while (rest + digits).to_string().len() > digits {
        digits += 1;
    }
    out.extend_from_slice((rest + digits).to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Appends one extended attribute.
pub(super) fn push_xattr(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let mut key = XATTR.to_vec();
    for &byte in name {
        match byte {
            b'=' => key.extend_from_slice(b"%3D"),
            b'%' => key.extend_from_slice(b"%25"),
            byte => key.push(byte),
        }
    }
    push(out, &key, value);
}

/// The attribute's name that `push_xattr` wrote as `key`, without its prefix.
pub(super) fn xattr_name(key: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(key.len());
    let mut rest = key;
    while let Some((&byte, after)) = rest.split_first() {
        let (decoded, next) = match (byte, after) {
            (b'%', [b'3', b'D', next @ ..]) => (b'=', next),
            (b'%', [b'2', b'5', next @ ..]) => (b'%', next),
            _ => (byte, after),
        };
        name.push(decoded);
        rest = next;
    }
    name
}

/// Takes the first record off `body`.
pub(super) fn take<'a>(body: &mut &'a [u8]) -> Result<(&'a [u8], &'a [u8])> {
    let bad = || Error::new(ErrorKind::CorruptWorld, "a PAX record is malformed");
    let space = body
        .iter()
        .take(8)
        .position(|&byte| byte == b' ')
        .ok_or_else(bad)?;
    let length = number(&body[..space]).ok_or_else(bad)? as usize;
    if length > body.len() || length < space + 3 || length > limits::PAX_BODY {
        return Err(bad());
    }
    let (record, rest) = body.split_at(length);
    let record = record[space + 1..].strip_suffix(b"\n").ok_or_else(bad)?;
    let equals = record
        .iter()
        .position(|&byte| byte == b'=')
        .filter(|&at| at > 0)
        .ok_or_else(bad)?;
    *body = rest;
    Ok((&record[..equals], &record[equals + 1..]))
}

/// A decimal number of digits only.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 20 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_come_back(
            key in "[a-zA-Z.]{1,200}",
            value in proptest::collection::vec(any::<u8>(), 0..2000),
            more in proptest::collection::vec(any::<u8>(), 0..10),
        ) {
            let mut body = Vec::new();
            push(&mut body, key.as_bytes(), &value);
            let whole = body.len();
            let said = format!("{whole} ");
            prop_assert!(body.starts_with(said.as_bytes()));
            body.extend_from_slice(&more);
            let mut rest = &body[..];
            prop_assert_eq!(take(&mut rest).unwrap(), (key.as_bytes(), &value[..]));
            prop_assert_eq!(rest, &more[..]);
        }

        #[test]
        fn attribute_names_come_back(name in proptest::collection::vec(1u8.., 1..50)) {
            let mut body = Vec::new();
            push_xattr(&mut body, &name, b"v");
            let (key, _) = take(&mut &body[..]).unwrap();
            prop_assert_eq!(xattr_name(key.strip_prefix(XATTR).unwrap()), name);
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut rest = &bytes[..];
            while take(&mut rest).is_ok() {}
        }
    }
}
