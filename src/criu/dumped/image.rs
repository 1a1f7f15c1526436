//! Images in memory, each by its name.

use std::collections::BTreeMap;

use prost::Message;

use crate::criu::images::{COMMON_MAGIC, split};
use crate::{Error, ErrorKind, Result};

/// Images of a dump, by their names.
#[derive(Debug, Clone, Default)]
pub struct Images(pub BTreeMap<String, Vec<u8>>);

impl Images {
    /// An image that every dump has.
    pub(super) fn need(&self, name: &str) -> Result<&[u8]> {
        let image = self.0.get(name).map(Vec::as_slice);
        image.ok_or_else(|| damaged(name, "is missing"))
    }

    /// The messages of an image with this magic; none where there is no such image.
    pub(super) fn messages(&self, name: &str, magic: u32) -> Result<Vec<&[u8]>> {
        let Some(image) = self.0.get(name) else {
            return Ok(Vec::new());
        };
        let mut head = COMMON_MAGIC.to_le_bytes().to_vec();
        head.extend(magic.to_le_bytes());
        let rest = image
            .strip_prefix(&head[..])
            .ok_or_else(|| damaged(name, "does not begin as it should"))?;
        split(rest).ok_or_else(|| damaged(name, "is cut short"))
    }

    /// The only message of an image; none where there is no such image.
    pub(super) fn message(&self, name: &str, magic: u32) -> Result<Option<&[u8]>> {
        match self.messages(name, magic)?[..] {
            [message] => Ok(Some(message)),
            [] if !self.0.contains_key(name) => Ok(None),
            _ => Err(damaged(name, "does not hold one entry")),
        }
    }
}

/// Decodes a message of an image.
pub(super) fn decode<M: Message + Default>(name: &str, message: &[u8]) -> Result<M> {
    M::decode(message).map_err(|_| damaged(name, "cannot be decoded"))
}

pub(super) fn damaged(name: &str, how: &str) -> Error {
    let text = format!("the image {name} {how}");
    Error::new(ErrorKind::CorruptWorld, text)
}
