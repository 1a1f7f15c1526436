//! The checksum by which `world.json` vouches for itself.
//!
//! It is the SHA-256 of the file's bytes with the 64 digits of the checksum
//! itself as zeros, and stands in the file exactly once. The digests of all
//! other files are in `world.json`, so every bit of a world is covered. It
//! shows damage, not forgery: anyone can compute it.

use crate::digest::Digest;
use crate::{Error, ErrorKind, Result};

/// Puts the checksum into a manifest whose checksum is all zeros: the SHA-256 of the very bytes
/// given. Nothing else in a world vouches for `world.json`.
pub fn sealed(mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    let place = place_of(Digest::default(), &bytes)?;
    let checksum = Digest::of(&bytes).to_string();
    bytes[place..place + checksum.len()].copy_from_slice(checksum.as_bytes());
    Ok(bytes)
}

/// Where in a manifest its checksum stands.
fn place_of(checksum: Digest, bytes: &[u8]) -> Result<usize> {
    let text = format!("\"{checksum}\"");
    let mut places = memchr::memmem::find_iter(bytes, &text);
    match (places.next(), places.next()) {
        (Some(place), None) => Ok(place + 1),
        _ => Err(corrupt("checksum: must occur exactly once".into())),
    }
}

/// Whether `checksum`, as it stands in the manifest `bytes`, is theirs. [`ErrorKind::CorruptWorld`] where not.
pub fn check(checksum: Digest, bytes: &[u8]) -> Result<()> {
    let place = place_of(checksum, bytes)?;
    let mut blank = bytes.to_vec();
    let zeros = Digest::default().to_string();
    blank[place..place + zeros.len()].copy_from_slice(zeros.as_bytes());
    match Digest::of(&blank) == checksum {
        true => Ok(()),
        false => Err(corrupt(
            "checksum: does not match, so it is damaged or was edited: fetch the world again or \
             take another checkpoint"
                .into(),
        )),
    }
}

fn corrupt(message: String) -> Error {
    Error::new(ErrorKind::CorruptWorld, message)
}
