//! A frame: up to 16 pages side by side, compressed together or as they are.
//!
//! A frame is one zstd frame (level 1) if that is shorter by at least an
//! eighth, else the pages themselves; its length tells which. Sixteen pages are
//! the balance between what a fault costs that needs one page only, and what
//! the compressor finds in its window; `benches/memory.rs` measures both.
//! Pages of random content stay as they are, so that they can be read alone.

use zstd::bulk::{Compressor, Decompressor};

use super::page::PAGE_SIZE;
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

/// Most pages in a frame.
pub const FRAME_PAGES: usize = 16;
/// Most bytes in a frame, before compression and after.
pub const FRAME_SIZE: usize = FRAME_PAGES * PAGE_SIZE;
/// Fast, and the fastest to decode.
const LEVEL: i32 = 1;

/// Compresses frames; keeps what the compressor needs from one to the next.
pub struct Encoder {
    compressor: Compressor<'static>,
}

impl Encoder {
    /// Fails where there is no memory.
    pub fn new() -> Result<Encoder> {
        let compressor = Compressor::new(LEVEL).context(|| "start a compressor")?;
        Ok(Encoder { compressor })
    }

    /// The stored form of at most [`FRAME_PAGES`] pages.
    pub fn encode(&mut self, pages: &[u8]) -> Result<Vec<u8>> {
        let most = pages.len() - pages.len() / 8;
        // A compressor that runs out of room has not saved an eighth.
        let mut stored = Vec::with_capacity(most);
        match self.compressor.compress_to_buffer(pages, &mut stored) {
            Ok(_) => {
                stored.shrink_to_fit();
                Ok(stored)
            }
            Err(_) => Ok(pages.to_vec()),
        }
    }
}

/// Decodes frames; keeps what the decompressor needs from one to the next.
pub struct Decoder {
    decompressor: Decompressor<'static>,
}

impl Decoder {
    /// Fails where there is no memory.
    pub fn new() -> Result<Decoder> {
        let decompressor = Decompressor::new().context(|| "start a decompressor")?;
        Ok(Decoder { decompressor })
    }

    /// Decodes a stored frame into exactly `pages`. Whether the content is right
    /// only the pages' hashes can tell.
    pub fn decode(&mut self, stored: &[u8], pages: &mut [u8]) -> Result<()> {
        if stored.len() == pages.len() {
            pages.copy_from_slice(stored);
            return Ok(());
        }
        match self.decompressor.decompress_to_buffer(stored, pages) {
            Ok(length) if length == pages.len() => Ok(()),
            Ok(_) => Err(Error::new(ErrorKind::CorruptWorld, "a frame is too short")),
            Err(error) => Err(Error::caused_by(
                ErrorKind::CorruptWorld,
                "a frame cannot be decoded",
                error,
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_come_back(
            pages in 1..=FRAME_PAGES,
            pattern in prop::collection::vec(any::<u8>(), 1..9000),
        ) {
            let content: Vec<u8> =
                pattern.iter().copied().cycle().take(pages * PAGE_SIZE).collect();
            let stored = Encoder::new().unwrap().encode(&content).unwrap();
            prop_assert!(stored.len() <= content.len());
            let mut decoded = vec![0; content.len()];
            Decoder::new().unwrap().decode(&stored, &mut decoded).unwrap();
            prop_assert_eq!(decoded, content);
        }

        #[test]
        fn garbage_never_panics(stored: Vec<u8>, pages in 1..=FRAME_PAGES) {
            let mut decoded = vec![0; pages * PAGE_SIZE];
            let _ = Decoder::new().unwrap().decode(&stored, &mut decoded);
        }
    }

    #[test]
    fn a_frame_that_claims_more_than_it_may_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
        let mut pages = vec![0; FRAME_SIZE];
        assert!(Decoder::new().unwrap().decode(&bomb, &mut pages).is_err());
    }
}
