//! What people call a world in a registry: `HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]`.

use std::fmt;
use std::str::FromStr;

use oci_client::Reference;

use crate::digest::Digest;
use crate::store::WorldName;
use crate::{Error, ErrorKind, Result};

/// A world, or the place for one, in a registry. Without a tag and a digest, the tag is `latest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteReference {
    reference: Reference,
    digest: Option<Digest>,
}

impl RemoteReference {
    /// The registry's host, and port if it is not the usual one.
    pub fn registry(&self) -> &str {
        self.reference.registry()
    }

    /// The digest, where one is part of it.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    pub(super) fn as_oci(&self) -> &Reference {
        &self.reference
    }

    /// What the world is to be called in the store, unless told: the last part of the
    /// repository, with the tag. `None` without a tag.
    pub fn world_name(&self) -> Result<Option<WorldName>> {
        let Some(tag) = self.reference.tag() else {
            return Ok(None);
        };
        let repository = self.reference.repository();
        let last = repository.rsplit('/').next().unwrap_or(repository);
        let name = format!("{last}:{tag}").parse();
        name.map(Some)
            .map_err(|error: Error| error.within(format!("{self} needs a NAME in the store")))
    }
}

impl FromStr for RemoteReference {
    type Err = Error;

    fn from_str(text: &str) -> Result<RemoteReference> {
        let invalid = |why: String| {
            let shown: String = text.chars().take(300).collect();
            let text = format!("{shown:?} is no HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]: {why}");
            Error::new(ErrorKind::InvalidInput, text)
        };
        let reference: Reference = text
            .parse()
            .map_err(|error: oci_client::ParseError| invalid(error.to_string()))?;
        // What names no registry would silently be taken for one in the world's largest.
        let host = text.split_once('/').map_or("", |(host, _)| host);
        if !host.contains(['.', ':']) && host != "localhost" {
            return Err(invalid("it names no registry".to_owned()));
        }
        let digest = reference.digest().map(str::parse::<Digest>).transpose();
        let digest = digest.map_err(|error| invalid(error.to_string()))?;
        Ok(RemoteReference { reference, digest })
    }
}

impl fmt::Display for RemoteReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RemoteReference {
        text.parse().expect(text)
    }

    #[test]
    fn a_registry_must_be_named() {
        for text in [
            "",
            "web",
            "web:1",
            "me/web:1",
            "/web",
            "host.test",
            "host.test/",
        ] {
            let error = text.parse::<RemoteReference>().expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        }
        assert_eq!(parse("localhost/web").registry(), "localhost");
        assert_eq!(parse("host:5000/a/web:1").registry(), "host:5000");
    }

    #[test]
    fn the_store_s_name_is_the_last_part_and_the_tag() {
        let name = |text: &str| parse(text).world_name().expect(text);
        let shown = |text: &str| name(text).map(|name| name.to_string());
        assert_eq!(shown("host.test/a/web").as_deref(), Some("web:latest"));
        assert_eq!(shown("host.test/a/web:v1.2").as_deref(), Some("web:v1.2"));
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(shown(&format!("host.test/web@{digest}")), None);
        let both = parse(&format!("host.test/web:1@{digest}"));
        assert_eq!(both.digest().map(|d| d.to_string()), Some(digest));
        let error = parse("host.test/web:a__b").world_name().expect_err("a tag");
        assert!(error.to_string().contains("NAME"), "{error}");
    }

    #[test]
    fn digests_of_other_sorts_are_refused() {
        let text = format!("host.test/web@sha512:{}", "a".repeat(128));
        let error = text.parse::<RemoteReference>().expect_err("sha512");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}
