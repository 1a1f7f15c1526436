//! A writable layer over one that holds a world's files already.

use super::attributes::{set_open, strip};
use super::reader::Reader;
use super::upper::{Upper, list, reopen_dir};
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};
use rustix::fd::AsFd;
use std::io::{Read, Seek};

/// Gives an empty layer's root what `tar` says of it: the root of an overlay is as its
/// topmost layer's. The overlay must not be mounted meanwhile.
///
/// # Errors
/// `WrongState` if there is anything in the layer: it would be seen in place of the world's
/// files. As [`super::verify`], if the archive is not to be trusted.
pub fn begin_empty<R: Read + Seek>(upper: &Upper, tar: R) -> Result<()> {
    let at = || format!("the writable layer {}", upper.path().display());
    let root = reopen_dir(upper.dir()).context(at)?;
    if !list(root.as_fd()).context(at)?.is_empty() {
        return Err(Error::new(
            ErrorKind::WrongState,
            format!("{} is not empty", at()),
        ));
    }
    let Some(entry) = Reader::new(tar)?.next()? else {
        return Err(Error::new(ErrorKind::CorruptWorld, "rootfs.tar is empty"));
    };
    strip(root.as_fd(), upper.layering(), true)?;
    set_open(root.as_fd(), &entry.meta).map_err(|error| error.within(at()))
}
