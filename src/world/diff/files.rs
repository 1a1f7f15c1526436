//! Files of the container's own layer.

use serde::Serialize;

use super::listing::{Change, Listing};
use crate::Result;
use crate::world::artifact::OpenedWorld;
use crate::world::raw_text::RawText;
use crate::world::rootfs::layers::{self, Inode, Layers, Seen};

/// What differs in the files.
#[derive(Debug, Serialize)]
pub struct FilesDiff {
    /// Whether both worlds stand on the same image; not known if one does not say.
    pub same_image: Option<bool>,
    /// By path.
    #[serde(flatten)]
    pub list: Listing<FileChange>,
}

/// A name that differs.
#[derive(Debug, Serialize)]
pub struct FileChange {
    /// In the container.
    pub path: RawText,
    /// What happened. A name that only one world's layer has counts as added or removed.
    pub change: Change,
    /// Whether the image has the name, so that the world whose layer does not have it shows
    /// the image's. Not known unless the layers tell.
    pub in_image: Option<bool>,
    /// In what it differs: `type`, `content`, `mode`, `owner`, `time`, `attributes`, `target`,
    /// `links`, `opaque`.
    pub what: Vec<&'static str>,
    /// In the first world's layer.
    pub before: Option<FileView>,
    /// In the second's.
    pub after: Option<FileView>,
}

/// What is under a name.
#[derive(Debug, Serialize)]
pub struct FileView {
    /// `file`, `directory`, `symlink`, `hardlink`, `char-device`, `block-device`, `fifo`, `socket`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Four octal digits.
    pub mode: String,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Of a file, in bytes.
    pub size: Option<u64>,
    /// Time of last change: seconds since 1970, with nine decimals.
    pub mtime: String,
    /// Of a symlink or hardlink.
    pub target: Option<RawText>,
    /// Of a device: `MAJOR:MINOR`.
    pub device: Option<String>,
}

impl FileView {
    fn of(inode: Inode) -> FileView {
        let (seconds, nanos) = inode.mtime;
        let kind = inode.kind;
        let absolute = |target: Vec<u8>| match kind {
            "hardlink" => [b"/", target.as_slice()].concat(),
            _ => target,
        };
        FileView {
            kind,
            mode: format!("{:04o}", inode.mode),
            uid: inode.uid,
            gid: inode.gid,
            size: inode.size,
            mtime: format!("{seconds}.{nanos:09}"),
            target: inode.target.map(|target| RawText(absolute(target))),
            device: inode
                .device
                .map(|(major, minor)| format!("{major}:{minor}")),
        }
    }

    fn texts(&self) -> usize {
        100 + self.target.as_ref().map_or(0, |target| target.0.len())
    }
}

pub(super) fn compare(old: &OpenedWorld, new: &OpenedWorld) -> Result<FilesDiff> {
    let mut diff = FilesDiff {
        same_image: same_image(old, new),
        list: Listing::default(),
    };
    // The same layers hold the same, whatever it is.
    if old.artifact.rootfs == new.artifact.rootfs {
        return Ok(diff);
    }
    let (mut before, mut after) = (old.rootfs()?, new.rootfs()?);
    let before = Layers {
        layers: &mut before.layers,
        expected: before.expected,
        name: old.name(),
    };
    let after = Layers {
        layers: &mut after.layers,
        expected: after.expected,
        name: new.name(),
    };
    layers::changes(before, after, &mut |change| {
        let change = file_change(change);
        let views = [&change.before, &change.after].into_iter().flatten();
        let texts = change.path.0.len() + views.map(FileView::texts).sum::<usize>();
        diff.list.push(change.change, change, texts);
        Ok(())
    })?;
    Ok(diff)
}

fn file_change(change: layers::Change) -> FileChange {
    let (change_kind, in_image) = judge(&change.before, &change.after);
    let view = |seen: Seen| match seen {
        Seen::Here(inode) => Some(FileView::of(inode)),
        Seen::Nothing | Seen::Image => None,
    };
    FileChange {
        path: RawText([b"/", change.path.as_slice()].concat()),
        change: change_kind,
        in_image,
        what: change.aspects.names(),
        before: view(change.before),
        after: view(change.after),
    }
}

/// What happened, and whether the image has the name, as far as the layers tell.
fn judge(before: &Seen, after: &Seen) -> (Change, Option<bool>) {
    match (before, after) {
        // A directory over the image's: the other world shows the image's own.
        (Seen::Here(inode), Seen::Image) | (Seen::Image, Seen::Here(inode)) if inode.over_image => {
            (Change::Changed, Some(true))
        }
        // Only what the image has can be deleted in a layer.
        (Seen::Image, Seen::Nothing) => (Change::Removed, Some(true)),
        (Seen::Nothing, Seen::Image) => (Change::Added, Some(true)),
        (Seen::Image, _) => (Change::Added, None),
        (_, Seen::Image) => (Change::Removed, None),
        (Seen::Nothing, _) => (Change::Added, None),
        (_, Seen::Nothing) => (Change::Removed, None),
        (Seen::Here(_), Seen::Here(_)) => (Change::Changed, None),
    }
}

fn same_image(old: &OpenedWorld, new: &OpenedWorld) -> Option<bool> {
    let chain = |world: &OpenedWorld| {
        let base = world.manifest.base.as_ref()?;
        base.chain_id.clone()
    };
    Some(chain(old)? == chain(new)?)
}
