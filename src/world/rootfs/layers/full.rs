//! A layer that stands on no other.

use super::compress::Compressor;
use super::{Expected, Written};
use crate::Result;
use crate::error::IoContext;
use crate::world::rootfs::decode::corrupt;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

/// Always the same steps, so that the same file gives the same layer.
const STEP: usize = 256 << 10;

/// Writes `rootfs.tar` as a full layer. The file's own offset is not touched.
///
/// # Errors
/// `CorruptWorld` if `tar` is not what is `expected`; other kinds from the
/// operating system. What was written until then is of no use.
pub fn write_full(tar: &File, expected: &Expected, out: impl Write) -> Result<Written> {
    let size = tar.metadata().context(|| "read rootfs.tar")?.len();
    let mut compressor = Compressor::new(out, Some(size))?;
    let mut buffer = vec![0; STEP];
    let mut at = 0;
    while at < size {
        let length = (size - at).min(STEP as u64) as usize;
        let chunk = &mut buffer[..length];
        tar.read_exact_at(chunk, at).context(|| "read rootfs.tar")?;
        compressor.write_all(chunk).context(|| "write a layer")?;
        at += length as u64;
    }
    let written = compressor.finish()?;
    if (written.size, written.diff_id) != (expected.size, expected.sha256) {
        return Err(corrupt("rootfs.tar is not what world.json says"));
    }
    Ok(written)
}
