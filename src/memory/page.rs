//! A page: 4096 bytes, known by the BLAKE3 hash of its content.
//!
//! 4096 whatever the page size of the host's processor: larger pages are some of these.

use std::fmt;

use crate::digest::Digest;

/// Bytes in a page.
pub const PAGE_SIZE: usize = 4096;

static ZERO: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

/// Whether a page is all zeros: such pages are stored nowhere.
pub fn is_zero(page: &[u8]) -> bool {
    page == ZERO.as_slice()
}

/// The BLAKE3 hash of a page's content: its identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageHash([u8; PageHash::SIZE]);

impl PageHash {
    /// Bytes in a hash.
    pub const SIZE: usize = 32;

    /// The hash of a page's content.
    pub fn of(page: &[u8]) -> PageHash {
        PageHash(*blake3::hash(page).as_bytes())
    }

    /// A hash as it was stored.
    pub fn from_bytes(bytes: [u8; PageHash::SIZE]) -> PageHash {
        PageHash(bytes)
    }

    /// The hash as it is stored.
    pub fn as_bytes(&self) -> &[u8; PageHash::SIZE] {
        &self.0
    }

    /// The same hash by a name that only those use who share an origin.
    pub(super) fn within(&self, origin: &Digest) -> PageHash {
        let mut name = *self;
        for (byte, other) in name.0.iter_mut().zip(origin.as_bytes()).take(8) {
            *byte ^= other;
        }
        name
    }

    /// The first eight bytes: enough to look a page up, too little to rely on.
    pub fn prefix(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Debug for PageHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_page_of_zeros_is_zero() {
        assert!(is_zero(&[0; PAGE_SIZE]));
        assert!(!is_zero(&[0; PAGE_SIZE - 1]));
        for at in [0, 1, PAGE_SIZE / 2, PAGE_SIZE - 1] {
            let mut page = [0; PAGE_SIZE];
            page[at] = 1;
            assert!(!is_zero(&page), "{at}");
        }
    }
}
