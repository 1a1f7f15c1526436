//! What overlayfs itself keeps in a writable layer: whiteouts, opaque
//! directories, and private extended attributes.

use super::entry::{EntryPath, Xattr};
use crate::{Error, ErrorKind, Result};

/// How the layer on disk is to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layering {
    /// The upper directory of an overlay; `userxattr` is the mount option.
    Overlay {
        /// Whether the overlay keeps its attributes under `user.overlay.`.
        userxattr: bool,
    },
    /// One directory that is the whole rootfs, nothing below it.
    Plain,
}

/// What a directory's mark says of what lies below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Opacity {
    /// Merged with the directory below.
    #[default]
    Merged,
    /// Hides the directory below.
    Opaque,
    /// Merged, and marked as holding whiteouts that are attributes.
    HoldsWhiteouts,
}

/// An entry's attributes, those of the overlay told apart from the container's.
#[derive(Debug, Default)]
pub(super) struct Marks {
    pub xattrs: Vec<Xattr>,
    pub opacity: Opacity,
    pub whiteout: bool,
}

impl Layering {
    /// The prefix of the overlay's own attributes, if there is an overlay.
    pub(super) fn prefix(self) -> Option<&'static [u8]> {
        match self {
            Layering::Overlay { userxattr: false } => Some(b"trusted.overlay."),
            Layering::Overlay { userxattr: true } => Some(b"user.overlay."),
            Layering::Plain => None,
        }
    }

    /// The part of an attribute's name after the overlay's prefix.
    pub(super) fn private_name(self, name: &[u8]) -> Option<&[u8]> {
        name.strip_prefix(self.prefix()?)
    }

    /// Sorts an entry's attributes into the container's and the overlay's.
    ///
    /// # Errors
    /// `Obstacle` if one of them ties the entry to the lower layers in a way
    /// that a layer's tar cannot say.
    pub(super) fn marks(self, xattrs: Vec<Xattr>, path: &EntryPath) -> Result<Marks> {
        let mut marks = Marks::default();
        for (name, value) in xattrs {
            match self.private_name(&name) {
                None => marks.xattrs.push((name, value)),
                Some(b"opaque") if value == b"y" => marks.opacity = Opacity::Opaque,
                Some(b"opaque") if value == b"x" => marks.opacity = Opacity::HoldsWhiteouts,
                Some(b"whiteout") => marks.whiteout = true,
                Some(b"origin" | b"impure" | b"nlink" | b"uuid" | b"upper") => {}
                Some(private) if may_travel(private) => marks.xattrs.push((name, value)),
                Some(private) => return Err(inexpressible(path, private, &name)),
            }
        }
        Ok(marks)
    }
}

/// Whether one of the overlay's own attributes means the same on another host:
/// a container's `chattr` flags, and what an overlay inside the container set.
pub(super) fn may_travel(private: &[u8]) -> bool {
    private == b"protattr" || private.starts_with(b"overlay.")
}

fn inexpressible(path: &EntryPath, private: &[u8], name: &[u8]) -> Error {
    let option = match private {
        b"redirect" => "the overlay option redirect_dir: mount it with redirect_dir=nofollow",
        b"metacopy" => "the overlay option metacopy: mount it with metacopy=off",
        _ => "an overlay feature unknown to this version",
    };
    Error::new(
        ErrorKind::Obstacle,
        format!(
            "{path} cannot be captured: its attribute {} comes from {option}",
            name.escape_ascii()
        ),
    )
}
