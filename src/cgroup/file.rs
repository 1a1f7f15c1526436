//! The text formats that cgroup files share: one number, `key value` lines.
//!
//! A file that is not there reads as "nothing": which files exist depends on
//! the kernel's version and configuration.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use crate::error::{IoContext, Result};

/// The file's text; `None` when it cannot be read (absent, unsupported, gone).
pub(super) fn text(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The number in a file, with `max` read as the given value.
/// Absent and unreadable files are 0; so are negative numbers (v1's "unlimited").
pub(super) fn number(path: &Path, max: u64) -> u64 {
    text(path).map_or(0, |text| parse_number(&text, max))
}

/// As [`number`], from text.
pub(super) fn parse_number(text: &str, max: u64) -> u64 {
    match text.trim() {
        "max" => max,
        digits => digits.parse().unwrap_or(0),
    }
}

/// A file of `key value` lines; lines of another form are left out.
pub(super) fn flat_keyed(path: &Path) -> Option<HashMap<String, u64>> {
    Some(parse_flat_keyed(&text(path)?))
}

/// As [`flat_keyed`], from text.
pub(super) fn parse_flat_keyed(text: &str) -> HashMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), parse_number(value, u64::MAX)))
        })
        .collect()
}

/// Writes to a cgroup file, which must exist already.
pub(super) fn write(path: &Path, value: &str) -> Result<()> {
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .context(|| format!("write {value:?} to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(parse_number("12\n", 7), 12);
        assert_eq!(parse_number("max\n", 7), 7);
        assert_eq!(parse_number("-1\n", 7), 0);
        assert_eq!(parse_number("", 7), 0);
        assert_eq!(number(Path::new("/nowhere"), 7), 0);
    }

    #[test]
    fn flat_keyed_skips_what_it_does_not_know() {
        let keyed = parse_flat_keyed("a 1\nb max\nTotal\n\nc 2\n");
        assert_eq!(keyed["a"], 1);
        assert_eq!(keyed["b"], u64::MAX);
        assert_eq!(keyed["c"], 2);
        assert_eq!(keyed.len(), 3);
    }
}
