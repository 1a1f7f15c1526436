//! Which names of the layers below a layer takes away.

use super::entry::Kind;
use super::reader::Reader;
use crate::Result;
use std::io::{Read, Seek};

/// The names that `tar` marks as deleted, as absolute paths, in its order. What an opaque
/// directory hides is not among them.
///
/// # Errors
/// As [`super::verify`], if the archive is not to be trusted.
pub fn deleted<R: Read + Seek>(tar: R) -> Result<Vec<Vec<u8>>> {
    let mut reader = Reader::new(tar)?;
    let mut deleted = Vec::new();
    while let Some(entry) = reader.next()? {
        if entry.kind == Kind::Whiteout {
            let mut path = b"/".to_vec();
            path.extend_from_slice(&entry.path.0);
            deleted.push(path);
        }
    }
    Ok(deleted)
}
