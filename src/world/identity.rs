//! Who a container is, as containerd knows it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::manifest::ImageIdentity;
use crate::digest::Digest;

/// What a world records of its container beyond what the container knows itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The image it was made from.
    pub image: Option<ImageIdentity>,
    /// Snapshotter of its rootfs.
    pub snapshotter: Option<String>,
    /// Chain id of the image's topmost layer below its own.
    pub chain_id: Option<String>,
    /// Digest of the `rootfs.tar` whose files lie in a layer between the two, as `world fork`
    /// makes it.
    pub committed: Option<Digest>,
}

/// An image's name without tag and digest.
pub fn repository(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    match name.rfind(':') {
        Some(colon) if !name[colon..].contains('/') => &name[..colon],
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_has_no_tag_and_no_digest() {
        for (name, bare) in [
            ("docker.io/library/x:latest", "docker.io/library/x"),
            ("host:5000/x", "host:5000/x"),
            ("host:5000/x:1@sha256:1", "host:5000/x"),
            ("x", "x"),
        ] {
            assert_eq!(repository(name), bare);
        }
    }
}
