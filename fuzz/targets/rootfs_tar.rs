//! `rootfs.tar` comes from whoever could write to a world.

use std::io::Cursor;
use worldshim::world::rootfs::{DevicePolicy, Layering, Policy, Privileged, verify};

pub fn run(bytes: &[u8]) {
    let mut tar = bytes.to_vec();
    repair(&mut tar);
    let policy = Policy {
        devices: DevicePolicy::default(),
        privileged: Privileged::Keep,
    };
    for layering in [Layering::Plain, Layering::Overlay { userxattr: false }] {
        let _ = verify(Cursor::new(&tar), layering, &policy, None);
    }
}

/// Makes checksums right, which no mutation would hit upon.
fn repair(tar: &mut [u8]) {
    for block in tar.as_chunks_mut::<512>().0 {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
    }
}
