//! Timer descriptors in `files.img`: periodic ones that had just expired.
//!
//! The kernel winds such a timer up again when its expirations are read; until
//! then it has no time left. CRIU takes that for a timer that is not set, and
//! it never rings again after the first read. A nanosecond that is left makes
//! it ring at once, as it did.

use super::images::{self, Kind};
use super::wire::{self, Field};
use crate::error::Result;

/// Field of a file's entry that holds a timer descriptor.
const TIMER: u32 = 12;
const TICKS: u32 = 5;
const SECONDS_LEFT: u32 = 7;
const NANOSECONDS_LEFT: u32 = 8;
const INTERVAL_SECONDS: u32 = 9;
const INTERVAL_NANOSECONDS: u32 = 10;

/// `files.img` with every such timer set; `None` when there is none.
pub fn set_expired(image: &[u8]) -> Result<Option<Vec<u8>>> {
    let entries = images::entries(image, Kind::Files)?;
    let mut found = false;
    let mut changed = Vec::with_capacity(entries.len());
    for entry in entries {
        let set = set(entry)?;
        found |= set.is_some();
        changed.push(set.unwrap_or_else(|| entry.to_vec()));
    }
    let changed = changed.iter().map(Vec::as_slice);
    Ok(found.then(|| images::assemble(Kind::Files, changed)))
}

fn fields(message: &[u8]) -> Result<Vec<Field<'_>>> {
    wire::fields(message).ok_or_else(|| images::damaged(Kind::Files, "cannot be decoded"))
}

/// A file's entry with its timer set; `None` when it needs no change.
fn set(entry: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut changed = Vec::with_capacity(entry.len() + 4);
    let mut found = false;
    for field in fields(entry)? {
        match field.bytes().filter(|_| field.number == TIMER) {
            Some(bytes) if has_expired(&fields(bytes)?) => {
                found = true;
                let mut timer = Vec::with_capacity(bytes.len() + 4);
                for field in fields(bytes)? {
                    if field.number != NANOSECONDS_LEFT {
                        timer.extend(field.raw);
                    }
                }
                wire::put_varint(&mut timer, NANOSECONDS_LEFT, 1);
                wire::put_bytes(&mut changed, TIMER, &timer);
            }
            _ => changed.extend(field.raw),
        }
    }
    Ok(found.then_some(changed))
}

fn has_expired(timer: &[Field<'_>]) -> bool {
    let number = |wanted| {
        let field = timer.iter().rfind(|field| field.number == wanted);
        field.and_then(Field::varint).unwrap_or(0)
    };
    let is_periodic = number(INTERVAL_SECONDS) != 0 || number(INTERVAL_NANOSECONDS) != 0;
    let nothing_left = number(SECONDS_LEFT) == 0 && number(NANOSECONDS_LEFT) == 0;
    is_periodic && nothing_left && number(TICKS) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn timer(ticks: u64, left: u64, interval: u64) -> Vec<u8> {
        let mut timer = Vec::new();
        for (field, number) in [
            (1, 9),
            (TICKS, ticks),
            (SECONDS_LEFT, 0),
            (NANOSECONDS_LEFT, left),
            (INTERVAL_SECONDS, 0),
            (INTERVAL_NANOSECONDS, interval),
        ] {
            wire::put_varint(&mut timer, field, number);
        }
        let mut entry = Vec::new();
        wire::put_varint(&mut entry, 1, 17);
        wire::put_bytes(&mut entry, TIMER, &timer);
        entry
    }

    fn image(entries: &[Vec<u8>]) -> Vec<u8> {
        images::assemble(Kind::Files, entries.iter().map(Vec::as_slice))
    }

    #[test]
    fn only_an_expired_periodic_timer_is_set() {
        let entries = [
            timer(0, 7, 50), // Runs.
            timer(1, 0, 0),  // Rang once, and that was all.
            timer(0, 0, 50), // Not set.
            timer(3, 0, 50),
        ];
        let changed = set_expired(&image(&entries)).unwrap().unwrap();
        let read = images::entries(&changed, Kind::Files).unwrap();
        assert_eq!(read[..3], entries[..3]);
        assert_ne!(read[3], entries[3]);
        assert_eq!(set_expired(&changed).unwrap(), None);
        assert_eq!(set_expired(&image(&entries[..3])).unwrap(), None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(entries: Vec<Vec<u8>>) {
            let _ = set_expired(&image(&entries));
        }
    }
}
