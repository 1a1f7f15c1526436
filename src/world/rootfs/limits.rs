//! What a `rootfs.tar` may hold at most. Capture keeps to the same bounds, so
//! that whatever it wrote can be brought back.

/// Entries in one archive.
pub(super) const ENTRIES: u64 = 50_000_000;

/// Directories inside one another. Each open level costs one descriptor.
pub(super) const DEPTH: usize = 400;

/// Bytes in one name: what Linux allows.
pub(super) const NAME: usize = 255;

/// Bytes in a symlink's target: what Linux allows, without the closing NUL.
pub(super) const SYMLINK_TARGET: usize = 4095;

/// Bytes of PAX records of one entry: what Go's `archive/tar` reads.
pub(super) const PAX_BODY: usize = 1 << 20;

/// Bytes in the value of one extended attribute: what Linux allows.
pub(super) const XATTR_VALUE: usize = 64 << 10;

/// Bytes in the name of one extended attribute: what Linux allows.
pub(super) const XATTR_NAME: usize = 255;

/// Stretches of data in one sparse file. What comes after them is written
/// with its holes filled. The map stays below 1 MiB, as Go's reader wants it.
pub(super) const SEGMENTS: usize = 16_384;

/// Bytes in one file.
pub(super) const FILE_SIZE: u64 = i64::MAX as u64;
