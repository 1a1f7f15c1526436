//! Bounded reading and deterministic writing of the JSON files of a world.
//!
//! Invariant of reading: [`check`] has looked at the raw bytes (size, depth,
//! length of each string) before serde sees them, so that a hostile file costs
//! no more memory than a few times its bounded size.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, ErrorKind, Result};

/// What a JSON file may be at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the whole file.
    pub bytes: usize,
    /// Objects and arrays inside one another.
    pub depth: usize,
    /// Bytes of one string, escapes counted as written.
    pub string: usize,
}

/// Checks raw bytes against limits and parses them. Every failure is
/// [`ErrorKind::CorruptWorld`] and says where in the document it is.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], limits: &Limits) -> Result<T> {
    check(bytes, limits)?;
    parse_checked(bytes)
}

/// Checks raw bytes against limits, without parsing them.
pub fn check(bytes: &[u8], limits: &Limits) -> Result<()> {
    if bytes.len() > limits.bytes {
        return Err(corrupt(format!(
            "{} bytes, at most {} are allowed",
            bytes.len(),
            limits.bytes
        )));
    }
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                let length = string_length(&bytes[at + 1..]);
                if length > limits.string {
                    return Err(corrupt(format!(
                        "a string of {length} bytes at byte {at}, at most {} are allowed",
                        limits.string
                    )));
                }
                at += length + 1;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > limits.depth {
            return Err(corrupt(format!(
                "nested deeper than {} at byte {at}",
                limits.depth
            )));
        }
        at += 1;
    }
    Ok(())
}

/// Bytes up to the closing quote or the end.
fn string_length(rest: &[u8]) -> usize {
    let mut at = 0;
    while let Some(&byte) = rest.get(at) {
        match byte {
            b'"' => return at,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Parses bytes that [`check`] accepted.
pub fn parse_checked<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    // serde would take an array of the fields' values for an object.
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first.is_some_and(|byte| *byte != b'{') {
        return Err(corrupt("is not a JSON object".into()));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        match path.as_str() {
            "." => corrupt(error.inner().to_string()),
            path => corrupt(format!("{path}: {}", error.inner())),
        }
    })?;
    deserializer
        .end()
        .map_err(|error| corrupt(error.to_string()))?;
    Ok(value)
}

/// Serialises deterministically: keys sorted, two spaces of indent, a newline at the end.
pub fn to_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let internal = |error| Error::caused_by(ErrorKind::Internal, "serialise JSON", error);
    let mut value = serde_json::to_value(value).map_err(internal)?;
    // Another crate may switch serde_json to insertion order for all of us.
    value.sort_all_objects();
    let mut bytes = serde_json::to_vec_pretty(&value).map_err(internal)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn corrupt(message: String) -> Error {
    // The text may quote the document: no terminal escapes, no endless lines.
    let shown = |c: char| match c.is_control() {
        true => '\u{fffd}',
        false => c,
    };
    let message: String = message.chars().take(600).map(shown).collect();
    Error::new(ErrorKind::CorruptWorld, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Limits = Limits {
        bytes: 100,
        depth: 3,
        string: 8,
    };

    fn message(bytes: &[u8]) -> String {
        let error = parse::<serde_json::Value>(bytes, &SMALL).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CorruptWorld);
        error.to_string()
    }

    #[test]
    fn limits_hold_before_parsing() {
        assert!(message(&[b' '; 101]).contains("101 bytes"));
        assert!(message(b"[[[[1]]]]").contains("nested deeper than 3"));
        assert!(message(b"[\"123456789\"]").contains("string of 9 bytes"));
        assert!(message(b"[\"123456789").contains("string of 9 bytes"));
        assert!(message(b" [1]").contains("not a JSON object"));
        assert!(message(b"{} x").contains("trailing"));
        assert!(message(b"").contains("EOF"));
    }

    #[test]
    fn brackets_and_quotes_in_strings_do_not_count() {
        let value: serde_json::Value = parse(br#"{"[[[[":"\"[[[","":"\\"}"#, &SMALL).unwrap();
        assert_eq!(value, serde_json::json!({"[[[[": "\"[[[", "": "\\"}));
    }
}
