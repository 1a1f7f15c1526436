//! Layers of trees in memory: the rules one by one, random lineages against a
//! model of what an OCI runtime does, and hostile input.

mod cases;
mod hostile;
mod lineage;
mod oci;
mod tree;

use super::delta::{self, Stop};
use super::{Expected, WhyFull, Written, merge, write_full};
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
    let written = write_full(&file(tar), &mut layer).expect("write a full layer");
    assert_eq!(written.diff_id, Digest::of(tar));
    assert_eq!(written.size, tar.len() as u64);
    assert_eq!(written.stored, layer.len() as u64);
    layer
}

/// The delta layer from what `parents` are to `tar`, of whatever size.
fn delta(tar: &[u8], parents: &[Vec<u8>]) -> Result<Vec<u8>, WhyFull> {
    delta_within(tar, parents, u64::MAX).map(|(layer, _)| layer)
}

fn delta_within(
    tar: &[u8],
    parents: &[Vec<u8>],
    limit: u64,
) -> Result<(Vec<u8>, Written), WhyFull> {
    let mut parents: Vec<_> = parents.iter().map(Cursor::new).collect();
    let mut out = Cursor::new(Vec::new());
    match delta::write(&file(tar), &expected(tar), &mut parents, &mut out, limit) {
        Ok(written) => {
            let layer = out.into_inner();
            assert_eq!(written.stored, layer.len() as u64);
            assert_eq!(written.diff_id, Digest::of(&unpacked(&layer)));
            Ok((layer, written))
        }
        Err(Stop::Full(why)) => Err(why),
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

/// The layers of both trees, the second as a delta.
fn two(before: &Tree, after: &Tree) -> Result<[Vec<u8>; 2], WhyFull> {
    let base = vec![full(&before.tar())];
    let delta = delta(&after.tar(), &base)?;
    let [base] = base.try_into().expect("one");
    let layers = [base, delta];
    let tar = after.tar();
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
