//! The options that clients send along, all in `Any`s of several types.
//!
//! A type is told by the last segment of its URL: `containerd.runc.v1.Options`,
//! `containerd.linux.runc.CreateOptions` and `runtimeoptions.v1.Options` are
//! all in use. No options, and an empty `Any`, mean the defaults.

use containerd_shim::protos::protobuf::Message;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::shim::oci;

use crate::error::{Error, ErrorKind, Result};

/// Decodes the options of Create.
pub fn create_options(any: Option<&Any>) -> Result<oci::Options> {
    match type_name(any) {
        // runtimeoptions.v1.Options has strings in fields where runc's has
        // booleans, and nothing in it is for us.
        Some((url, _)) if url.starts_with("runtimeoptions.") => Ok(oci::Options::new()),
        Some((_, "Options" | "CreateOptions")) => parse(any),
        None => Ok(oci::Options::new()),
        Some((url, _)) => Err(unknown(url)),
    }
}

/// Decodes the options of Checkpoint.
pub fn checkpoint_options(any: Option<&Any>) -> Result<Option<oci::CheckpointOptions>> {
    match type_name(any) {
        None => Ok(None),
        Some((_, "CheckpointOptions")) => parse(any).map(Some),
        Some((url, _)) => Err(unknown(url)),
    }
}

/// The type's full name and its last segment.
fn type_name(any: Option<&Any>) -> Option<(&str, &str)> {
    let url = any?.type_url.as_str();
    let full = url.rsplit('/').next().unwrap_or(url);
    let last = full.rsplit('.').next().unwrap_or(full);
    (!last.is_empty()).then_some((full, last))
}

fn parse<M: Message>(any: Option<&Any>) -> Result<M> {
    let bytes = any.map(|any| any.value.as_slice()).unwrap_or_default();
    M::parse_from_bytes(bytes).map_err(|error| {
        Error::caused_by(ErrorKind::InvalidInput, "decode the runtime options", error)
    })
}

fn unknown(url: &str) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        format!("runtime options of the type {url} are not understood"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(url: &str, value: Vec<u8>) -> Any {
        Any {
            type_url: url.into(),
            value,
            ..Default::default()
        }
    }

    #[test]
    fn nothing_and_an_empty_any_are_the_defaults() {
        assert_eq!(create_options(None).unwrap(), oci::Options::new());
        let empty = any("", vec![]);
        assert_eq!(create_options(Some(&empty)).unwrap(), oci::Options::new());
        assert_eq!(checkpoint_options(Some(&empty)).unwrap(), None);
    }

    #[test]
    fn types_are_told_by_their_last_segment() {
        let sent = oci::CheckpointOptions {
            exit: true,
            ..Default::default()
        };
        let bytes = sent.write_to_bytes().unwrap();
        for url in [
            "containerd.runc.v1.CheckpointOptions",
            "type.googleapis.com/containerd.linux.runc.CheckpointOptions",
        ] {
            let got = checkpoint_options(Some(&any(url, bytes.clone()))).unwrap();
            assert!(got.unwrap().exit);
        }
        assert!(checkpoint_options(Some(&any("a.b.Other", bytes))).is_err());
    }
}
