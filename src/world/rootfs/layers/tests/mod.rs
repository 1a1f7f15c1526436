//! Layers of trees in memory: the rules one by one, random lineages against a
//! model of what an OCI runtime does, and hostile input.

mod cases;
mod changes;
mod hostile;
mod lineage;
mod oci;
mod tree;

use super::delta::{self, Stop};
use super::{Expected, MOST_LAYERS, Outcome, WhyFull, merge, write_full};
use crate::digest::Digest;
use crate::{Error, ErrorKind};
use std::fs::File;
use std::io::{Cursor, Write};
use tree::Tree;

/// `bytes` as an open file that has no name.
fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("make a temporary file");
    file.write_all(bytes).expect("write it");
    file
}

fn expected(tar: &[u8]) -> Expected {
    Expected {
        size: tar.len() as u64,
        sha256: Digest::of(tar),
    }
}

/// The full layer of a `rootfs.tar`.
fn full(tar: &[u8]) -> Vec<u8> {
    let mut layer = Vec::new();
    let written = write_full(&file(tar), &expected(tar), &mut layer).expect("write a full layer");
    assert_eq!(written.diff_id, Digest::of(tar));
    assert_eq!(written.size, tar.len() as u64);
    assert_eq!(written.stored, layer.len() as u64);
    layer
}

/// The delta layer from what `parents` are to `tar`, of whatever size.
fn delta(tar: &[u8], parents: &[Vec<u8>]) -> Result<Vec<u8>, WhyFull> {
    let layers = layers_within(tar, parents, u64::MAX)?;
    let (delta, below) = layers.split_last().expect("a layer");
    assert!(below == parents, "a delta onto all parents");
    Ok(delta.clone())
}

/// The layers of `tar`, made from `parents` if a delta of `limit` bytes will do.
fn layers_within(tar: &[u8], parents: &[Vec<u8>], limit: u64) -> Result<Vec<Vec<u8>>, WhyFull> {
    let mut streams: Vec<_> = parents.iter().map(Cursor::new).collect();
    let mut out = Cursor::new(Vec::new());
    let outcome = delta::write(&file(tar), &expected(tar), &mut streams, &mut out, limit);
    let delta = out.into_inner();
    match outcome {
        Ok(Outcome::Unchanged) => {
            assert!(delta.is_empty());
            Ok(parents.to_vec())
        }
        Ok(Outcome::Delta { written, onto }) => {
            assert_eq!(written.stored, delta.len() as u64);
            assert_eq!(written.diff_id, Digest::of(&unpacked(&delta)));
            Ok([&parents[..onto], &[delta]].concat())
        }
        Ok(Outcome::NeedsFull(why)) | Err(Stop::Full(why)) => Err(why),
        Err(Stop::Fail(error)) => panic!("{error}"),
    }
}

/// The tar in a layer.
fn unpacked(layer: &[u8]) -> Vec<u8> {
    zstd::decode_all(layer).expect("a layer is a zstd stream")
}

/// Merges layers that have to give `tar`.
fn merged(layers: &[Vec<u8>], tar: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    let mut layers: Vec<_> = layers.iter().map(Vec::as_slice).collect();
    merge(&mut layers, &expected(tar), &mut out)?;
    Ok(out)
}

/// Merges layers of which nothing is promised.
fn refusal(layers: &[Vec<u8>]) -> String {
    let mut layers: Vec<_> = layers.iter().map(Vec::as_slice).collect();
    let promise = Expected {
        size: 1 << 20,
        sha256: Digest::default(),
    };
    let error = merge(&mut layers, &promise, std::io::sink()).expect_err("nothing fits");
    assert_eq!(error.kind(), ErrorKind::CorruptWorld, "{error}");
    error.to_string()
}

/// The layers of the second tree, made from those of the first.
fn two(before: &Tree, after: &Tree) -> Result<Vec<Vec<u8>>, WhyFull> {
    let tar = after.tar();
    let layers = layers_within(&tar, &[full(&before.tar())], u64::MAX)?;
    assert!(merged(&layers, &tar).expect("the layers fit") == tar);
    Ok(layers)
}

/// What a delta layer says, one word a name.
fn said(layer: &[u8]) -> Vec<String> {
    oci::entries(&unpacked(layer))
        .iter()
        .map(oci::Entry::summary)
        .collect()
}
