//! Text from the system that is usually UTF-8 but may be any bytes.
//!
//! In JSON a plain string where it is UTF-8, else `{"base64": "..."}`. Both
//! forms survive a round trip byte for byte.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes that are usually text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct RawText(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Encoded {
    base64: String,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a string or {\"base64\": ...}")]
enum Form {
    Plain(String),
    Encoded(Encoded),
}

impl Serialize for RawText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Encoded {
                base64: STANDARD.encode(&self.0),
            }
            .serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for RawText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawText, D::Error> {
        match Form::deserialize(deserializer)? {
            Form::Plain(text) => Ok(RawText(text.into_bytes())),
            Form::Encoded(Encoded { base64 }) => STANDARD
                .decode(base64)
                .map(RawText)
                .map_err(serde::de::Error::custom),
        }
    }
}

impl fmt::Debug for RawText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.escape_ascii().to_string())
    }
}

/// For people: bytes that are not UTF-8 show as U+FFFD.
impl fmt::Display for RawText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl<T: AsRef<[u8]>> From<T> for RawText {
    fn from(bytes: T) -> RawText {
        RawText(bytes.as_ref().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_survive(bytes: Vec<u8>) {
            let text = RawText(bytes);
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(serde_json::from_str::<RawText>(&json).unwrap(), text);
        }
    }

    #[test]
    fn text_stays_readable() {
        assert_eq!(
            serde_json::to_string(&RawText::from("aé")).unwrap(),
            "\"aé\""
        );
    }
}
