//! The rootfs of a world as layers, on those of its parent where it has one.

use std::fs::File;
use std::io::{self, BufWriter, Seek};

use super::layout::{Artifact, Content};
use crate::Result;
use crate::error::IoContext;
use crate::store::Lease;
use crate::world::manifest::PartFile;
use crate::world::rootfs::layers::{self, Expected, Outcome};

/// Layers are written in pieces of this many bytes.
const BUFFER: usize = 256 << 10;

/// The layers that a world's rootfs became, the lowest first.
pub(super) struct Layers {
    pub layers: Vec<Content>,
    /// Bytes that the store did not have before.
    pub new_bytes: u64,
}

/// What layers have to give.
pub(super) fn expected(file: &PartFile) -> Expected {
    Expected {
        size: file.size,
        sha256: file.sha256,
    }
}

/// Stores `tar` as layers. Whether the parent's serve as the lowest is found out.
pub(super) fn pack(
    tar: &File,
    file: &PartFile,
    parent: Option<&Artifact>,
    lease: &Lease,
) -> Result<Layers> {
    match parent {
        Some(parent) if !parent.rootfs.is_empty() => on_parent(tar, file, &parent.rootfs, lease),
        _ => full(tar, file, lease),
    }
}

fn on_parent(tar: &File, file: &PartFile, parent: &[Content], lease: &Lease) -> Result<Layers> {
    let store = lease.store();
    let mut opened = Vec::with_capacity(parent.len());
    for layer in parent {
        opened.push(store.open_blob(&layer.digest)?.file);
    }
    let mut delta = tempfile::tempfile_in(store.path()).context(|| "make a temporary file")?;
    match layers::write_delta(tar, &expected(file), &mut opened, &mut delta)? {
        Outcome::NeedsFull(why) => {
            tracing::info!("the rootfs becomes a full layer: {why}");
            full(tar, file, lease)
        }
        Outcome::Unchanged => Ok(Layers {
            layers: parent.to_vec(),
            new_bytes: 0,
        }),
        Outcome::Delta { onto, .. } => {
            let mut blob = BufWriter::with_capacity(BUFFER, lease.write_blob()?);
            delta
                .rewind()
                .and_then(|()| io::copy(&mut delta, &mut blob))
                .context(|| "store a rootfs layer")?;
            let written = finish(blob)?;
            let mut layers = parent[..onto].to_vec();
            layers.push(written.into());
            Ok(Layers {
                layers,
                new_bytes: new_bytes(&written),
            })
        }
    }
}

fn full(tar: &File, file: &PartFile, lease: &Lease) -> Result<Layers> {
    let mut blob = BufWriter::with_capacity(BUFFER, lease.write_blob()?);
    layers::write_full(tar, &expected(file), &mut blob)?;
    let written = finish(blob)?;
    Ok(Layers {
        layers: vec![written.into()],
        new_bytes: new_bytes(&written),
    })
}

fn finish(blob: BufWriter<crate::store::BlobWriter>) -> Result<crate::store::Written> {
    let blob = blob.into_inner().map_err(io::IntoInnerError::into_error);
    blob.context(|| "store a rootfs layer")?.finish()
}

fn new_bytes(written: &crate::store::Written) -> u64 {
    match written.new {
        true => written.size,
        false => 0,
    }
}
