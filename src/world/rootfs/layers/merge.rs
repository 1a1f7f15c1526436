//! From a world's layers back to its `rootfs.tar`.

use super::archive::Archive;
use super::compress::Decompressor;
use super::merged::Merged;
use super::{Expected, MOST_LAYERS};
use crate::Result;
use crate::digest::Hashing;
use crate::error::IoContext;
use crate::world::rootfs::decode::corrupt;
use crate::world::rootfs::reader::unreadable;
use std::io::{self, BufWriter, Read, Write};

/// Writes the `rootfs.tar` that `layers` are, the lowest first, to `out`.
///
/// # Errors
/// `CorruptWorld` if the layers are damaged, hostile, or give anything else
/// than `expected`. What was written until then, never more than
/// `expected.size`, is of no use.
pub fn merge<R: Read>(layers: &mut [R], expected: &Expected, out: impl Write) -> Result<()> {
    if layers.is_empty() || layers.len() > MOST_LAYERS {
        let count = layers.len();
        return Err(corrupt(format!(
            "the rootfs has {count} layers, 1 to {MOST_LAYERS} are allowed"
        )));
    }
    let mut out = Checked {
        out: BufWriter::with_capacity(256 << 10, out),
        hashing: Hashing::default(),
    };
    match layers {
        [only] => copy(only, expected, &mut out)?,
        layers => {
            let mut merged = Merged::new(layers, expected.budget())?;
            let mut archive = Archive::new(&mut out, expected.size);
            while let Some(node) = merged.next()? {
                archive.node(&node, |buffer| merged.read_data(buffer))?;
            }
            archive.finish()?;
            if merged.size() > expected.budget() {
                return Err(corrupt("the rootfs layers hold more than they may"));
            }
        }
    }
    out.out.flush().context(|| "write the rootfs")?;
    let (sha256, size) = out.hashing.finish();
    if size != expected.size || sha256 != expected.sha256 {
        let Expected { size, sha256 } = expected;
        return Err(corrupt(format!(
            "the rootfs layers do not give the world's rootfs.tar of {size} bytes, {sha256}; \
             take another copy of the world"
        )));
    }
    Ok(())
}

/// A full layer is `rootfs.tar` itself, whatever is in it.
fn copy<R: Read>(layer: &mut R, expected: &Expected, out: &mut impl Write) -> Result<()> {
    let mut layer = Decompressor::new(layer, expected.size)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = match layer.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreadable("rootfs layer 1", error)),
        };
        out.write_all(&buffer[..count])
            .context(|| "write the rootfs")?;
    }
}

/// Hashes what passes through.
struct Checked<W> {
    out: W,
    hashing: Hashing,
}

impl<W: Write> Write for Checked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hashing.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
