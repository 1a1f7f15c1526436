//! A bounded reader of the few CRIU images that we look into.
//!
//! An image is `u32 magic` (the inventory) or `u32 common magic, u32 magic`,
//! then entries of `u32 length, protobuf message`; all little endian.

use std::path::Path;

use prost::Message;

use super::wire;
use crate::error::{Error, ErrorKind, IoContext, Result};

/// A larger image of these kinds than this is not read.
const MAX_IMAGE: u64 = 64 << 20;
/// A larger entry than this is not one.
const MAX_ENTRY: usize = 4 << 20;

pub(super) const COMMON_MAGIC: u32 = 0x5456_4319;
/// The image's format version that CRIU has written since 1.1.
const FORMAT: u32 = 2;

/// The images that we look into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `inventory.img`
    Inventory,
    /// `pstree.img`
    Tree,
    /// `files.img`
    Files,
}

impl Kind {
    /// The image's file name.
    pub fn file_name(self) -> &'static str {
        match self {
            Kind::Inventory => "inventory.img",
            Kind::Tree => "pstree.img",
            Kind::Files => "files.img",
        }
    }

    fn head(self) -> Vec<u8> {
        let words: &[u32] = match self {
            Kind::Inventory => &[0x5831_3116],
            Kind::Tree => &[COMMON_MAGIC, 0x5027_3030],
            Kind::Files => &[COMMON_MAGIC, 0x5630_3138],
        };
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

/// The head of the inventory.
#[derive(Clone, PartialEq, Message)]
struct Inventory {
    #[prost(uint32, required, tag = "1")]
    format: u32,
}

/// A process in the images.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct ImageProcess {
    /// Its id in the container.
    #[prost(uint32, required, tag = "1")]
    pub pid: u32,
    /// Its parent's, 0 for the root.
    #[prost(uint32, required, tag = "2")]
    pub parent: u32,
    /// Its process group's.
    #[prost(uint32, required, tag = "3")]
    pub group: u32,
    /// Its session's.
    #[prost(uint32, required, tag = "4")]
    pub session: u32,
    /// Its threads' ids; the first is its own.
    #[prost(uint32, repeated, packed = "false", tag = "5")]
    pub threads: Vec<u32>,
}

/// Reads an image of a directory; `None` when it is not there.
pub fn read(directory: &Path, kind: Kind) -> Result<Option<Vec<u8>>> {
    let path = directory.join(kind.file_name());
    let metadata = match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata.context(|| format!("look at {}", path.display()))?,
    };
    if metadata.len() > MAX_IMAGE {
        return Err(damaged(kind, "is too large"));
    }
    let bytes = std::fs::read(&path).context(|| format!("read {}", path.display()))?;
    Ok(Some(bytes))
}

/// The messages in an image.
pub fn entries(image: &[u8], kind: Kind) -> Result<Vec<&[u8]>> {
    let head = kind.head();
    let Some(rest) = image.strip_prefix(&head[..]) else {
        return Err(damaged(kind, "does not begin as it should"));
    };
    split(rest).ok_or_else(|| damaged(kind, "is cut short"))
}

/// Names of images that are nothing but messages; in others raw data follows some of them.
const MESSAGES: [&str; 22] = [
    "apparmor",
    "autofs",
    "cgroup",
    "core-",
    "creds-",
    "fanotify",
    "fdinfo-",
    "files",
    "filelocks",
    "fs-",
    "ids-",
    "inventory",
    "mm-",
    "mountpoints-",
    "netns-",
    "pagemap-",
    "pstree",
    "seccomp",
    "timens-",
    "timers-",
    "tty-info",
    "utsns-",
];
/// What images begin with: ordinary ones, and those about a dump itself.
const MAGIC: [u32; 2] = [COMMON_MAGIC, 0x5510_5940];

/// Whether an image can be decoded, as far as its name says what is in it: some are raw data.
pub fn check(path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if !MESSAGES.iter().any(|prefix| name.starts_with(prefix)) {
        return Ok(());
    }
    let broken = |what: &str| Error::new(ErrorKind::CorruptWorld, format!("{name} {what}"));
    let size = std::fs::metadata(path).context(|| format!("look at {name}"))?;
    if size.len() > MAX_IMAGE {
        return Err(broken("is too large"));
    }
    let image = std::fs::read(path).context(|| format!("read {name}"))?;
    // The inventory says of what form the others are, and has the older, shorter head.
    let inventory = Kind::Inventory.head();
    let messages = match name == Kind::Inventory.file_name() {
        true => image.strip_prefix(&inventory[..]),
        false => after_magic(&image),
    };
    let messages = messages.ok_or_else(|| broken("does not begin like an image of CRIU's"))?;
    let messages = split(messages).ok_or_else(|| broken("is cut short"))?;
    match messages
        .into_iter()
        .all(|message| wire::fields(message).is_some())
    {
        true => Ok(()),
        false => Err(broken("cannot be decoded")),
    }
}

/// What follows the two magic numbers.
fn after_magic(image: &[u8]) -> Option<&[u8]> {
    let (magic, rest) = image.split_first_chunk::<4>()?;
    let known = MAGIC.contains(&u32::from_le_bytes(*magic));
    rest.get(4..).filter(|_| known)
}

/// Messages, each after its length.
pub(super) fn split(mut rest: &[u8]) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::new();
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (entry, tail) = tail
            .split_at_checked(length)
            .filter(|_| length <= MAX_ENTRY)?;
        entries.push(entry);
        rest = tail;
    }
    rest.is_empty().then_some(entries)
}

/// An image with these messages.
pub fn assemble<'a>(kind: Kind, entries: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut image = kind.head();
    for entry in entries {
        // An entry that was read is at most 4 MiB, and grows by a few bytes.
        image.extend((entry.len() as u32).to_le_bytes());
        image.extend(entry);
    }
    image
}

/// The processes in a directory of images, the root first.
///
/// # Errors
/// `CorruptWorld` when inventory or tree are missing or damaged, or the tree is
/// not one; `ForeignWorld` for a format that CRIU 4 does not write.
pub fn processes(directory: &Path) -> Result<Vec<ImageProcess>> {
    let need = |kind: Kind| read(directory, kind)?.ok_or_else(|| damaged(kind, "is missing"));
    check_inventory(&need(Kind::Inventory)?)?;
    tree(&need(Kind::Tree)?)
}

pub(super) fn check_inventory(image: &[u8]) -> Result<()> {
    let kind = Kind::Inventory;
    let entries = entries(image, kind)?;
    let [entry] = entries[..] else {
        return Err(damaged(kind, "does not hold one entry"));
    };
    let inventory = Inventory::decode(entry).map_err(|_| damaged(kind, "cannot be decoded"))?;
    if inventory.format != FORMAT {
        let text = format!(
            "CRIU's images are of format {}, not {FORMAT}",
            inventory.format
        );
        return Err(Error::new(ErrorKind::ForeignWorld, text));
    }
    Ok(())
}

pub(super) fn tree(image: &[u8]) -> Result<Vec<ImageProcess>> {
    let kind = Kind::Tree;
    let mut processes: Vec<ImageProcess> = Vec::new();
    let mut known = std::collections::HashSet::new();
    for entry in entries(image, kind)? {
        let process =
            ImageProcess::decode(entry).map_err(|_| damaged(kind, "cannot be decoded"))?;
        let fits = match processes.is_empty() {
            true => process.parent == 0,
            false => known.contains(&process.parent),
        };
        if !fits || process.pid == 0 || !known.insert(process.pid) {
            return Err(damaged(kind, "is not a tree"));
        }
        processes.push(process);
    }
    match processes.is_empty() {
        true => Err(damaged(kind, "holds no process")),
        false => Ok(processes),
    }
}

pub(super) fn damaged(kind: Kind, how: &str) -> Error {
    let text = format!("the image {} {how}", kind.file_name());
    Error::new(ErrorKind::CorruptWorld, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn process(pid: u32, parent: u32) -> Vec<u8> {
        let threads = vec![pid];
        ImageProcess {
            pid,
            parent,
            group: pid,
            session: 1,
            threads,
        }
        .encode_to_vec()
    }

    fn image(processes: &[Vec<u8>]) -> Vec<u8> {
        assemble(Kind::Tree, processes.iter().map(Vec::as_slice))
    }

    #[test]
    fn a_tree_is_read() {
        let read = tree(&image(&[process(1, 0), process(7, 1), process(9, 7)])).unwrap();
        assert_eq!(
            read.iter().map(|process| process.pid).collect::<Vec<_>>(),
            [1, 7, 9]
        );
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        for wrong in [
            vec![],
            vec![process(1, 5)],
            vec![process(1, 0), process(1, 1)],
            vec![process(1, 0), process(2, 3)],
            vec![process(1, 0), process(2, 0)],
        ] {
            assert_eq!(
                tree(&image(&wrong)).unwrap_err().kind(),
                ErrorKind::CorruptWorld
            );
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let whole = image(&[process(1, 0), process(2, 1)]);
        let first = Kind::Tree.head().len() + 4 + process(1, 0).len();
        for length in (0..whole.len()).filter(|length| *length != first) {
            assert!(tree(&whole[..length]).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(mut bytes: Vec<u8>, with_head: bool) {
            if with_head {
                bytes.splice(0..0, Kind::Tree.head());
            }
            let _ = tree(&bytes);
            let _ = check_inventory(&bytes);
        }

        #[test]
        fn entries_come_back(messages: Vec<Vec<u8>>) {
            let image = image(&messages);
            prop_assert_eq!(entries(&image, Kind::Files).is_err(), true);
            prop_assert_eq!(entries(&image, Kind::Tree).unwrap(), messages);
        }
    }
}
