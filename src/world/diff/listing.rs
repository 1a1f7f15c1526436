//! A list of differences that does not grow for ever.

use serde::Serialize;

/// About how many bytes of memory one list may take.
const MOST_BYTES: usize = 128 << 20;

/// What happened to something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Only the second world has it.
    Added,
    /// Both have it, not the same.
    Changed,
    /// Only the first has it.
    Removed,
}

impl Change {
    /// What happened to what is there before or after, or both.
    pub(super) fn of<T>(before: Option<T>, after: Option<T>) -> Change {
        match (before, after) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            _ => Change::Changed,
        }
    }
}

/// Differences, and how many there are.
#[derive(Debug, Serialize)]
pub struct Listing<T> {
    /// How many were added.
    pub added: u64,
    /// How many were changed.
    pub changed: u64,
    /// How many were removed.
    pub removed: u64,
    /// The first of them, in order.
    pub list: Vec<T>,
    /// How many are not in the list because it would be too long.
    pub omitted: u64,
    #[serde(skip)]
    bytes: usize,
}

impl<T> Default for Listing<T> {
    fn default() -> Listing<T> {
        Listing {
            added: 0,
            changed: 0,
            removed: 0,
            list: Vec::new(),
            omitted: 0,
            bytes: 0,
        }
    }
}

impl<T> Listing<T> {
    /// Whether there are any.
    pub fn differs(&self) -> bool {
        self.added + self.changed + self.removed > 0
    }

    /// Adds one, whose texts have so many bytes.
    pub(super) fn push(&mut self, change: Change, item: T, texts: usize) {
        match change {
            Change::Added => self.added += 1,
            Change::Changed => self.changed += 1,
            Change::Removed => self.removed += 1,
        }
        let bytes = self.bytes.saturating_add(texts + size_of::<T>());
        if self.omitted > 0 || bytes > MOST_BYTES {
            self.omitted += 1;
            return;
        }
        self.bytes = bytes;
        self.list.push(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut_and_counted() {
        let mut listing = Listing::default();
        for number in 0..5 {
            listing.push(Change::Added, number, MOST_BYTES / 3);
        }
        listing.push(Change::Removed, 5, 0);
        assert_eq!(listing.list, [0, 1]);
        assert_eq!((listing.added, listing.removed, listing.omitted), (5, 1, 4));
        assert!(listing.differs());
    }
}
