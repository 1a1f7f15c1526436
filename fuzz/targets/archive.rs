//! A file that somebody wants to import: tars, compressed or not, and what is in them.

use std::io::Write;

use worldshim::criu::pagemap_counts::{with_old_counts, without_old_counts};

pub fn run(bytes: &[u8]) {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("write");
    let _ = worldshim::archive::form_of(file, "it".to_owned());
    if let Some(told) = with_old_counts(bytes) {
        assert_eq!(without_old_counts(&told).as_deref(), Some(bytes));
    }
}
