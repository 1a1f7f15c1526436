//! Layers from whoever could write to a registry.

use super::tree::{Body, Tree};
use super::*;
use proptest::prelude::*;
use std::io::Read;

fn pack(tar: &[u8]) -> Vec<u8> {
    zstd::encode_all(tar, 1).expect("compress")
}

fn small() -> Tree {
    Tree::new().dir("a").file("a/x", 1).file("b", 2)
}

fn other() -> Tree {
    small().without("b").file("a/y", 1).whiteout("c")
}

#[test]
fn removed_names_belong_into_delta_layers_only() {
    let delta = two(&small(), &other()).unwrap()[1].clone();
    assert!(refusal(&[delta.clone(), delta]).contains("only a delta layer may hold"));
    let delta = unpacked(&two(&small(), &other()).unwrap()[1]);
    let any = crate::world::rootfs::Policy {
        devices: crate::world::rootfs::DevicePolicy::default(),
        privileged: crate::world::rootfs::Privileged::Keep,
    };
    let layering = crate::world::rootfs::Layering::Plain;
    let error = crate::world::rootfs::verify(std::io::Cursor::new(delta), layering, &any, None);
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("only a delta layer")
    );
}

#[test]
fn unsorted_and_foreign_layers_are_refused() {
    let good = full(&small().tar());
    let blocks = small().tar();
    // The file `b` before the directory `a`.
    let (root, a, b) = (&blocks[..512], &blocks[512..2560], &blocks[2560..4096]);
    assert_eq!(&b[..2], b"b\0");
    let unsorted = [root, b, a, &[0; 1024]].concat();
    assert!(refusal(&[good.clone(), pack(&unsorted)]).contains("out of order"));
    let twice = [root, a, b, b, &[0; 1024]].concat();
    assert!(refusal(&[good.clone(), pack(&twice)]).contains("occurs twice"));
    let rootless = [a, &[0; 1024]].concat();
    assert!(refusal(&[good.clone(), pack(&rootless)]).contains("before the root"));
    assert!(refusal(&[good.clone(), pack(b"")]).contains("truncated"));
    assert!(refusal(&[good.clone(), b"foreign".to_vec()]).contains("rootfs layer 2"));
    let more = [&blocks[..], &[0; 512]].concat();
    assert!(refusal(&[good.clone(), pack(&more)]).contains("goes on after its end"));
    let trailing = [&good[..], b"more"].concat();
    refusal(&[good.clone(), trailing]);
    assert!(refusal(&[]).contains("0 layers"));
    assert!(refusal(&vec![good; 9]).contains("9 layers"));
}

#[test]
fn what_the_layers_give_has_to_be_what_is_promised() {
    let layers = two(&small(), &other()).unwrap();
    let (right, wrong) = (other().tar(), small().tar());
    assert!(merged(&layers, &right).is_ok());
    assert!(merged(&layers, &wrong).is_err());
    assert!(merged(&layers[..1], &right).is_err());
    assert!(merged(&[layers[1].clone(), layers[0].clone()], &right).is_err());
}

#[test]
fn a_full_layer_of_another_tar_is_not_made() {
    let (right, wrong) = (expected(&small().tar()), other().tar());
    let error = write_full(&file(&wrong), &right, std::io::sink()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CorruptWorld);
}

#[test]
fn damage_anywhere_is_found() {
    let layers = two(&small(), &other()).unwrap();
    let tar = other().tar();
    for number in 0..2 {
        for at in 0..layers[number].len() {
            let mut damaged = layers.clone();
            damaged[number][at] ^= 0x10;
            // A flip that changes nothing that comes out does no harm.
            if let Ok(out) = merged(&damaged, &tar) {
                assert!(out == tar);
            }
            let mut cut = layers.clone();
            cut[number].truncate(at);
            assert!(merged(&cut, &tar).is_err(), "layer {number} cut at {at}");
        }
    }
}

/// Zeros without end, compressed as well as it goes.
struct Bomb {
    frame: Vec<u8>,
    at: usize,
    given: u64,
}

impl Bomb {
    /// After `head`, which is a tar's beginning.
    fn new(head: &[u8]) -> Bomb {
        let zeros = pack(&vec![0; 64 << 20]);
        Bomb {
            frame: [pack(head), zeros].concat(),
            at: 0,
            given: 0,
        }
    }
}

impl Read for Bomb {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.at == self.frame.len() {
            self.frame = pack(&vec![0; 64 << 20]);
            self.at = 0;
        }
        let count = (&self.frame[self.at..]).read(buffer)?;
        self.at += count;
        self.given += count as u64;
        Ok(count)
    }
}

#[test]
fn a_bomb_goes_off_in_no_time() {
    let size = 1 << 50;
    let huge = Body::File {
        seed: 0,
        size,
        segments: Some(vec![(0, 1)]),
    };
    let sparse = Tree::new().body("big", huge).tar();
    // Its header alone: the file goes on for ever.
    let head = &sparse[..sparse.len() - 1024 - 512];
    let promise = Expected {
        size: 8 << 20,
        sha256: Digest::default(),
    };
    let good = full(&small().tar());
    let mut bombs = [Bomb::new(&[]), Bomb::new(head)];
    for bomb in &mut bombs {
        let mut layers: [&mut dyn Read; 2] = [&mut &good[..], bomb];
        let error = merge(&mut layers, &promise, std::io::sink()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CorruptWorld, "{error}");
    }
    let mut alone: [&mut dyn Read; 1] = [&mut bombs[0]];
    let error = merge(&mut alone, &promise, std::io::sink()).unwrap_err();
    assert!(error.to_string().contains("more comes out"), "{error}");
    assert!(bombs.iter().all(|bomb| bomb.given < 1 << 20));
}

#[test]
fn a_window_larger_than_every_decoder_has_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&small().tar()).unwrap();
    let layer = encoder.finish().unwrap();
    refusal(&[layer.clone(), layer]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_is_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..3000),
        compressed: bool,
    ) {
        let layer = if compressed { pack(&bytes) } else { bytes };
        refusal(&[full(&small().tar()), layer.clone()]);
        refusal(&[layer]);
    }

    /// Layers that are tars, with bytes changed and the checksums made right.
    #[test]
    fn changed_layers_are_refused_or_harmless(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        which in 0usize..2,
    ) {
        let layers = two(&small(), &other()).unwrap();
        let mut tar = unpacked(&layers[which]);
        for (at, byte) in changes {
            let at = at.index(tar.len());
            tar[at] = byte;
        }
        for block in tar.as_chunks_mut::<512>().0 {
            if &block[257..262] == b"ustar" {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
                block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            }
        }
        let mut changed = layers.clone();
        changed[which] = pack(&tar);
        let after = other().tar();
        if let Ok(out) = merged(&changed, &after) {
            prop_assert!(out == after);
        }
        let _ = layers_within(&after, &changed, u64::MAX);
    }
}
