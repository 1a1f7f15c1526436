//! SHA-256 digests, and hashing a file that lies in a directory.
//!
//! Written as OCI writes them: `sha256:` and 64 lower-case hexadecimal digits.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

/// How much is read at once while hashing, in bytes: fits the second-level cache.
const BLOCK: usize = 256 * 1024;

/// Size of a piece, in bytes. A digest in pieces is the SHA-256 of the SHA-256 digests, 32 bytes
/// each, of a file's pieces of this size (the last may be shorter; an empty file has none): it can
/// be had on all cores.
pub const PIECE: u64 = 4 << 20;

/// A SHA-256 digest. The default, all zeros, is the digest of nothing known.
#[derive(Default, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of bytes in memory.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// The 64 digits without the name of the algorithm: the name of a blob's file.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// A digest as a binary format stores it.
    pub const fn from_bytes(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }

    /// The digest as a binary format stores it.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Digest> {
        let bytes = text
            .strip_prefix("sha256:")
            .filter(|digits| !digits.bytes().any(|b| b.is_ascii_uppercase()))
            .and_then(|digits| {
                let mut bytes = [0; 32];
                hex::decode_to_slice(digits, &mut bytes)
                    .ok()
                    .map(|()| bytes)
            });
        bytes.map(Digest).ok_or_else(|| {
            Error::new(
                ErrorKind::CorruptWorld,
                "a digest must be `sha256:` and 64 lower-case hexadecimal digits",
            )
        })
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Digest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// A digest in the making: bytes are taken in order.
#[derive(Debug, Clone, Default)]
pub struct Hashing {
    state: Sha256,
    size: u64,
    /// The digests of the pieces that are complete; [`PIECE`].
    pieces: Option<Sha256>,
}

impl Hashing {
    /// Not the digest of the bytes, but that of the digests of their pieces; see [`PIECE`].
    pub fn in_pieces() -> Hashing {
        Hashing {
            pieces: Some(Sha256::new()),
            ..Hashing::default()
        }
    }

    /// [`PIECE`], where this is one in pieces.
    pub fn piece_size(&self) -> Option<u64> {
        self.pieces.as_ref().map(|_| PIECE)
    }

    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while self.pieces.is_some() && bytes.len() as u64 >= self.left_of_piece() {
            let (piece, rest) = bytes.split_at(self.left_of_piece() as usize);
            self.state.update(piece);
            self.size += piece.len() as u64;
            self.end_piece();
            bytes = rest;
        }
        self.state.update(bytes);
        self.size += bytes.len() as u64;
    }

    fn left_of_piece(&self) -> u64 {
        PIECE - self.size % PIECE
    }

    fn end_piece(&mut self) {
        if let Some(pieces) = &mut self.pieces {
            pieces.update(self.state.finalize_reset());
        }
    }

    /// How many bytes were taken.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The digest of all bytes taken, and their count.
    pub fn finish(mut self) -> (Digest, u64) {
        if !self.size.is_multiple_of(PIECE) {
            self.end_piece();
        }
        let state = self.pieces.unwrap_or(self.state);
        (Digest(state.finalize().into()), self.size)
    }

    /// Takes what `file` holds from where this hashing stands up to its present end.
    /// Returns the number of bytes taken; the file's own offset is not touched.
    pub fn catch_up(&mut self, file: &File, buffer: &mut Vec<u8>) -> std::io::Result<u64> {
        buffer.resize(BLOCK, 0);
        let start = self.size;
        loop {
            match file.read_at(buffer, self.size) {
                Ok(0) => return Ok(self.size - start),
                Ok(count) => self.update(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Like [`Hashing::catch_up`] for a file that nobody writes any more: its pieces, if this
    /// hashing has any, are taken on all cores. `what` names it in the error.
    pub fn complete(&mut self, file: &File, what: impl fmt::Display + Sync) -> Result<()> {
        let reading = || format!("read {what}");
        let end = file.metadata().context(reading)?.len();
        if self.pieces.is_none() || end <= self.size + PIECE {
            return self
                .catch_up(file, &mut Vec::new())
                .map(drop)
                .context(reading);
        }
        let begun = self.size / PIECE;
        let numbers: Vec<u64> = (begun..end.div_ceil(PIECE)).collect();
        let pieces = on_all_cores(&numbers, |number| {
            let (mut state, from) = match *number == begun {
                true => (self.state.clone(), self.size),
                false => (Sha256::new(), number * PIECE),
            };
            let to = end.min((number + 1) * PIECE);
            read_range(file, from..to, |bytes| state.update(bytes)).context(reading)?;
            Ok((state, to))
        })?;
        for (state, to) in pieces {
            (self.state, self.size) = (state, to);
            if to.is_multiple_of(PIECE) {
                self.end_piece();
            }
        }
        Ok(())
    }
}

/// Fails where the file ends before the range.
fn read_range(file: &File, range: Range<u64>, mut take: impl FnMut(&[u8])) -> std::io::Result<()> {
    let mut buffer = vec![0; BLOCK];
    let mut at = range.start;
    while at < range.end {
        let count = buffer.len().min((range.end - at) as usize);
        file.read_exact_at(&mut buffer[..count], at)?;
        take(&buffer[..count]);
        at += count as u64;
    }
    Ok(())
}

/// Hashes a whole file from its start. `what` names it in the error.
pub fn hash_file(file: &File, what: impl fmt::Display) -> Result<(Digest, u64)> {
    let mut hashing = Hashing::default();
    hashing
        .catch_up(file, &mut Vec::new())
        .context(|| format!("read {what}"))?;
    Ok(hashing.finish())
}

/// Runs `work` on every item on all cores and returns the results in the items' order,
/// or the error of the first item (in that order) that failed.
pub fn on_all_cores<T, R, F>(items: &[T], work: F) -> Result<Vec<R>>
where
    T: Sync,
    R: Send,
    F: Fn(&T) -> Result<R> + Sync,
{
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let run = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else {
                return done;
            };
            done.push((index, work(item)));
        }
    };
    let mut results = std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..cores.min(items.len()))
            .map(|_| scope.spawn(run))
            .collect();
        let mut results = run();
        for helper in helpers {
            match helper.join() {
                Ok(done) => results.extend(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_as_it_is_written() {
        let digest = Digest::of(b"abc");
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse::<Digest>().unwrap(), digest);
    }

    #[test]
    fn other_forms_are_refused() {
        let upper = Digest::of(b"abc").to_string().to_uppercase();
        for text in [
            "",
            "sha256:",
            "sha256:00",
            "md5:00",
            &upper,
            &format!("{}0", Digest::of(b"")),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text:?}");
        }
    }

    fn in_pieces(bytes: &[u8]) -> (Digest, u64) {
        let digests = bytes
            .chunks(PIECE as usize)
            .map(|piece| *Digest::of(piece).as_bytes());
        let digests: Vec<u8> = digests.flatten().collect();
        (Digest::of(&digests), bytes.len() as u64)
    }

    #[test]
    fn a_digest_in_pieces_is_that_of_their_digests_however_the_bytes_come() {
        let piece = PIECE as usize;
        let bytes: Vec<u8> = (0..3 * piece + 5).map(|at| (at / 3) as u8).collect();
        for size in [0, 1, piece - 1, piece, piece + 1, 3 * piece, 3 * piece + 5] {
            let bytes = &bytes[..size];
            let mut file = tempfile::tempfile().unwrap();
            std::io::Write::write_all(&mut file, bytes).unwrap();
            for begun in [0, 1, size / 2, piece, size] {
                let mut hashing = Hashing::in_pieces();
                hashing.update(&bytes[..begun.min(size)]);
                let mut alone = hashing.clone();
                alone.catch_up(&file, &mut Vec::new()).unwrap();
                assert_eq!(alone.finish(), in_pieces(bytes), "{size} {begun}");
                hashing.complete(&file, "x").unwrap();
                assert_eq!(hashing.finish(), in_pieces(bytes), "{size} {begun}");
            }
        }
    }

    #[test]
    fn work_on_all_cores_keeps_order_and_reports_the_first_failure() {
        let items: Vec<u32> = (0..100).collect();
        let doubled = on_all_cores(&items, |n| Ok(n * 2)).unwrap();
        assert_eq!(doubled, items.iter().map(|n| n * 2).collect::<Vec<_>>());
        let failed = on_all_cores(&items, |n| match n {
            30 | 60 => Err(Error::new(ErrorKind::Internal, n.to_string())),
            _ => Ok(()),
        });
        assert_eq!(failed.unwrap_err().to_string(), "30");
    }
}
