//! An image made by `ctr container checkpoint`: an index whose entries are no
//! manifests but the parts of a checkpoint, the shim's directory as a tar among them.

use std::fs::File;
use std::io::{BufWriter, Write};

use oci_spec::image::ImageIndex;

use super::source::Source;
use crate::containerd::Namespace;
use crate::digest::Digest;
use crate::error::IoContext;
use crate::store::{Document, MAX_DOCUMENT, Workspace};
use crate::{Error, ErrorKind, Result};

/// The tar of what the shim wrote.
const CRIU_TAR: &str = "application/vnd.containerd.container.criu.checkpoint.criu.tar";

/// The digest of the shim's directory, where an index is such an image's.
pub(super) fn checkpoint_of(index: &ImageIndex) -> Result<Option<Digest>> {
    let mut entries = index.manifests().iter();
    let tar = entries.find(|entry| entry.media_type().to_string() == CRIU_TAR);
    tar.map(|tar| tar.digest().to_string().parse()).transpose()
}

/// Fetches the shim's directory of an image in containerd's store, as a file in `workspace`.
pub(super) fn fetch(
    namespace: &Namespace,
    name: &str,
    workspace: &Workspace,
    progress: &dyn Fn(u64),
) -> Result<Source> {
    let within = |error: Error| error.within(format!("image {name}"));
    let Some(image) = namespace.image(name)? else {
        let text = format!(
            "there is no image {name} in containerd's namespace {}",
            namespace.name()
        );
        return Err(Error::new(ErrorKind::NotFound, text));
    };
    let digest: Digest = image.digest.parse().map_err(within)?;
    let mut bytes = Vec::new();
    namespace
        .read_content(&digest, MAX_DOCUMENT as u64, &mut bytes)
        .map_err(within)?;
    let tar = match Document::parse(&bytes).map_err(within)? {
        Document::Index(index) => checkpoint_of(&index).map_err(within)?,
        Document::Manifest(_) => None,
    };
    let Some(tar) = tar else {
        let text = format!(
            "image {name} is no checkpoint of a running container: `ctr container checkpoint \
             --task` makes one"
        );
        return Err(Error::new(ErrorKind::ForeignWorld, text));
    };
    let path = workspace.path().join("criu.tar");
    let file = File::create_new(&path).context(|| format!("create {}", path.display()))?;
    let mut out = Counting {
        out: BufWriter::with_capacity(256 << 10, file),
        progress,
    };
    namespace
        .read_content(&tar, u64::MAX, &mut out)
        .map_err(within)?;
    out.out
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error)
        .context(|| format!("write {}", path.display()))?;
    let file = File::open(&path).context(|| format!("open {}", path.display()))?;
    Source::of(file, format!("image {name}"))
}

/// Tells how much goes through it.
struct Counting<'a, W> {
    out: W,
    progress: &'a dyn Fn(u64),
}

impl<W: Write> Write for Counting<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.out.write(bytes)?;
        (self.progress)(count as u64);
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
