//! The name of a file in a world directory.
//!
//! Invariant: one path component of 1 to 200 ASCII letters, digits, `.`, `_`
//! and `-`; no leading `.` or `-`; no `..` anywhere, because containerd's CRI
//! refuses such names when it packs the directory. A value of this type can be
//! joined to a directory without leaving it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result};

/// Longest file name in a world directory, in bytes.
pub const MAX_LEN: usize = 200;

/// A checked file name: see the module's head for the invariant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(String);

impl FileName {
    /// Checks a name. Fails with [`ErrorKind::CorruptWorld`] where it breaks the invariant.
    pub fn new(name: impl Into<String>) -> Result<FileName> {
        let name = name.into();
        match fault(&name) {
            None => Ok(FileName(name)),
            Some(why) => Err(Error::new(
                ErrorKind::CorruptWorld,
                format!("file name {:?} {why}", shown(&name)),
            )),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn fault(name: &str) -> Option<&'static str> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() {
        Some("is empty")
    } else if name.len() > MAX_LEN {
        Some("is longer than 200 bytes")
    } else if name.starts_with(['.', '-']) {
        Some("starts with '.' or '-'")
    } else if name.contains("..") {
        Some("contains '..'")
    } else if !name.bytes().all(allowed) {
        Some("has characters other than letters, digits, '.', '_' and '-'")
    } else {
        None
    }
}

/// As much of an untrusted name as belongs into an error message.
fn shown(name: &str) -> String {
    name.chars().take(80).collect()
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for FileName {
    type Error = Error;

    fn try_from(name: String) -> Result<FileName> {
        FileName::new(name)
    }
}

impl FromStr for FileName {
    type Err = Error;

    fn from_str(name: &str) -> Result<FileName> {
        FileName::new(name)
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> String {
        name.0
    }
}

impl AsRef<std::path::Path> for FileName {
    fn as_ref(&self) -> &std::path::Path {
        std::path::Path::new(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_criu_and_we_use_are_taken() {
        for name in [
            "pages-1.img",
            "world.json",
            "ghost-file-1f.img",
            "tmpfs-dev-73.tar.gz.img",
        ] {
            assert_eq!(FileName::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn names_that_could_escape_or_confuse_are_refused() {
        let long = "a".repeat(MAX_LEN + 1);
        for name in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            "/etc/passwd",
            "a..b",
            ".hidden",
            "-rf",
            "a\0b",
            "a\nb",
            "a b",
            "a\\b",
            "ä",
            &long,
        ] {
            let error = FileName::new(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::CorruptWorld, "{name:?}");
        }
    }
}
