//! What people call a world: `NAME[:TAG]`, a digest, or the beginning of one.
//!
//! ```text
//! NAME  = component *( "/" component )            at most 255 characters
//! TAG   = component                               at most 128 characters
//! component = alphanum *( separator alphanum )
//! separator = "-" / "." / "_" / "+" / "--"
//! ```
//!
//! A subset of what the OCI image layout allows for `org.opencontainers.image.ref.name`, in
//! which worlds are always called `NAME:TAG`. The name `sha256` is taken for digests.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::{Error, ErrorKind, Result};

/// The tag of a name that has none.
pub const DEFAULT_TAG: &str = "latest";

const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;
const DIGEST_PREFIX: &str = "sha256:";
const HEX_DIGITS: usize = 64;
/// The shortest beginning of a digest that is taken for one.
pub const SHORTEST_PREFIX: usize = 6;

/// A name with its tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorldName {
    name: String,
    tag: String,
}

impl WorldName {
    /// The part before the colon.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The part after the colon.
    pub fn tag(&self) -> &str {
        &self.tag
    }
}

impl fmt::Display for WorldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.tag)
    }
}

impl FromStr for WorldName {
    type Err = Error;

    fn from_str(text: &str) -> Result<WorldName> {
        let (name, tag) = text.split_once(':').unwrap_or((text, DEFAULT_TAG));
        let valid_name = name.len() <= MAX_NAME && name.split('/').all(is_component);
        let valid_tag = tag.len() <= MAX_TAG && is_component(tag);
        if !valid_name || !valid_tag || name == "sha256" {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "{:?} is no name for a world: write NAME[:TAG] with letters and digits, and \
                     single - . _ + between them",
                    text.chars().take(100).collect::<String>()
                ),
            ));
        }
        Ok(WorldName {
            name: name.to_owned(),
            tag: tag.to_owned(),
        })
    }
}

fn is_component(text: &str) -> bool {
    let is_separator = |c: char| matches!(c, '-' | '.' | '_' | '+');
    let only_known = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || is_separator(c));
    // Without the double hyphens, two separators side by side leave an empty word.
    let words = text.replace("--", "-");
    only_known && !text.contains("---") && words.split(is_separator).all(|word| !word.is_empty())
}

/// A way to say which world is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// By name and tag.
    Name(WorldName),
    /// By its whole digest.
    Digest(Digest),
    /// By the beginning of its digest: hexadecimal digits without `sha256:`.
    Prefix(String),
    /// Either: a name that could also be the beginning of a digest. The name goes first.
    NameOrPrefix(WorldName, String),
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reference> {
        let is_hex = |text: &str| {
            (SHORTEST_PREFIX..=HEX_DIGITS).contains(&text.len())
                && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let digits = text.strip_prefix(DIGEST_PREFIX);
        match (digits, digits.unwrap_or(text)) {
            (_, digits) if digits.len() == HEX_DIGITS && is_hex(digits) => {
                format!("{DIGEST_PREFIX}{digits}")
                    .parse()
                    .map(Reference::Digest)
            }
            (Some(digits), _) if is_hex(digits) => Ok(Reference::Prefix(digits.to_owned())),
            (Some(_), _) => Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "{:?} is no digest: write sha256: and {SHORTEST_PREFIX} to {HEX_DIGITS} \
                     lower-case hexadecimal digits",
                    text.chars().take(100).collect::<String>()
                ),
            )),
            (None, _) if is_hex(text) => {
                Ok(Reference::NameOrPrefix(text.parse()?, text.to_owned()))
            }
            (None, _) => text.parse().map(Reference::Name),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Name(name) => write!(f, "{name}"),
            Reference::Digest(digest) => write!(f, "{digest}"),
            Reference::Prefix(prefix) => write!(f, "{DIGEST_PREFIX}{prefix}"),
            Reference::NameOrPrefix(_, prefix) => write!(f, "{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_without_a_tag_is_the_latest() {
        assert_eq!(
            "web".parse::<WorldName>().unwrap().to_string(),
            "web:latest"
        );
        let name: WorldName = "team/web-1_a.b+c--d:v1.2".parse().unwrap();
        assert_eq!((name.name(), name.tag()), ("team/web-1_a.b+c--d", "v1.2"));
    }

    #[test]
    fn other_names_are_refused() {
        let long = "a".repeat(256);
        for text in [
            "",
            ":",
            "a:",
            ":a",
            "a:b:c",
            "/a",
            "a/",
            "a//b",
            "../a",
            "a..b",
            "a-",
            "-a",
            "a---b",
            "a--.b",
            "a.-b",
            "a__b",
            "a b",
            "a@b",
            "ä",
            "a\n",
            "sha256:abc",
            "sha256",
            &long,
        ] {
            assert!(text.parse::<WorldName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn digests_and_their_beginnings_are_told_from_names() {
        let digest = Digest::of(b"x");
        let parse = |text: &str| text.parse::<Reference>().unwrap();
        assert_eq!(parse(&digest.to_string()), Reference::Digest(digest));
        assert_eq!(parse(&digest.hex()), Reference::Digest(digest));
        assert_eq!(
            parse("sha256:abcdef"),
            Reference::Prefix("abcdef".to_owned())
        );
        let web = "abcdef".parse().unwrap();
        assert_eq!(
            parse("abcdef"),
            Reference::NameOrPrefix(web, "abcdef".to_owned())
        );
        assert!(matches!(parse("abcde"), Reference::Name(_)));
        assert!(matches!(parse("abcdef:v1"), Reference::Name(_)));
        for text in ["sha256:abcde", "sha256:", "sha256:ABCDEF", "sha512:abcdef"] {
            let kind = text.parse::<Reference>().map_err(|error| error.kind());
            match text {
                // A name like any other.
                "sha512:abcdef" => assert!(matches!(kind, Ok(Reference::Name(_)))),
                _ => assert_eq!(kind.unwrap_err(), ErrorKind::InvalidInput, "{text}"),
            }
        }
    }

    proptest! {
        #[test]
        fn a_name_reads_as_it_is_written(
            name in "[A-Za-z0-9]{1,9}([-._+]|--)[A-Za-z0-9]{1,9}(/[A-Za-z0-9]{1,9}){0,3}",
            tag in "[A-Za-z0-9]{1,9}([-._+][A-Za-z0-9]{1,9}){0,3}",
        ) {
            let text = format!("{name}:{tag}");
            let parsed: WorldName = text.parse().unwrap();
            prop_assert_eq!(parsed.to_string(), text);
        }

        #[test]
        fn nothing_makes_the_parser_fall(text in ".{0,80}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert!(reference.to_string().parse::<Reference>().is_ok());
            }
        }
    }
}
