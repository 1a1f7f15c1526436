//! Giving back memory that a shim does not need while it only waits.
//!
//! A shim lives as long as its container and does nothing most of the time.
//! On its way there it has run code that it never runs again, and the kernel
//! maps sixteen pages with every one that is touched. Executable pages of files
//! are clean: unmapped, they cost nothing, and a fault each if they are needed
//! after all.

use std::time::Duration;

use crate::error::{IoContext, Result};

/// How long after a start the clients' next questions are over, mostly.
const SETTLED: Duration = Duration::from_millis(400);

/// Gives memory back when the shim has come to rest.
pub fn rest_soon() {
    tokio::spawn(async {
        tokio::time::sleep(SETTLED).await;
        if let Err(error) = unmap_code() {
            log::debug!("memory is not given back: {error}");
        }
    });
}

fn unmap_code() -> Result<()> {
    let path = "/proc/self/maps";
    let maps = std::fs::read_to_string(path).context(|| format!("read {path}"))?;
    for (start, end) in maps.lines().filter_map(code_of_file) {
        crate::sys::unmap_clean_pages(start, end - start).context(|| "unmap pages")?;
    }
    Ok(())
}

/// The bounds of a mapping `START-END r-xp … /FILE`.
fn code_of_file(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let is_code = words.next()? == "r-xp" && words.nth(3)?.starts_with('/');
    let number = |digits| usize::from_str_radix(digits, 16).ok();
    is_code.then_some((number(start)?, number(end)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_found() {
        let found = |line| code_of_file(line);
        assert_eq!(
            found("a0-b0 r-xp 00000000 fe:00 1   /usr/bin/x"),
            Some((0xa0, 0xb0))
        );
        assert_eq!(found("a0-b0 r--p 00000000 fe:00 1   /usr/bin/x"), None);
        assert_eq!(found("a0-b0 r-xp 00000000 00:00 0   [vdso]"), None);
        assert_eq!(found("a0-b0 r-xp 00000000 00:00 0"), None);
    }

    #[test]
    fn code_runs_on() {
        unmap_code().unwrap();
        only_code_of_files_is_found();
    }
}
