//! Crafted dumps, and garbage.

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message;

use super::message::*;
use super::*;
use crate::ErrorKind;
use crate::criu::images::ImageProcess;
use crate::criu::wire::{put_bytes, put_varint};

fn image(magic: &[u32], messages: &[Vec<u8>]) -> Vec<u8> {
    let mut image: Vec<u8> = magic.iter().flat_map(|word| word.to_le_bytes()).collect();
    for message in messages {
        image.extend((message.len() as u32).to_le_bytes());
        image.extend(message);
    }
    image
}

const COMMON: u32 = 0x5456_4319;

/// A process with two regions, a file and a socket.
fn dump() -> Images {
    let process = ImageProcess {
        pid: 1,
        parent: 0,
        group: 1,
        session: 1,
        threads: vec![1, 2],
    };
    let core = Core {
        task: Some(TaskCore {
            state: 1,
            command: b"sleep".to_vec(),
        }),
        thread: Some(ThreadCore {
            credentials: Some(Credentials { user: 7, group: 8 }),
        }),
    };
    let area = |start, end, shared, status| {
        Area {
            start,
            end,
            offset: 0x1000,
            shared,
            protection: 3,
            flags: 2,
            status,
            advice: None,
        }
        .encode_to_vec()
    };
    let mut map = Vec::new();
    put_varint(&mut map, 5, 0x5800);
    put_varint(&mut map, 12, 5);
    put_bytes(&mut map, 14, &area(0x1000, 0x3000, 5, 1 | 1 << 6));
    put_bytes(&mut map, 14, &area(0x3000, 0x4000, 0, 1 | 1 << 5 | 1 << 9));
    put_bytes(&mut map, 14, &area(0x5000, 0x6000, 0, 1 | 1 << 9));
    put_bytes(&mut map, 14, &area(0x9000, 0xa000, 77, 1 | 1 << 8));
    let file = FileEntry {
        kind: 1,
        id: 5,
        regular: Some(Regular {
            flags: 2,
            position: 10,
            path: b"/bin/sleep".to_vec(),
        }),
        ..FileEntry::default()
    };
    let socket = FileEntry {
        kind: 4,
        id: 6,
        inet: Some(Inet {
            family: 2,
            protocol: 6,
            state: 10,
            local_port: 80,
            local: vec![u32::from_ne_bytes([127, 0, 0, 1])],
            peer: vec![0],
            ..Inet::default()
        }),
        ..FileEntry::default()
    };
    let descriptor = |id, number| Descriptor {
        id,
        flags: 1,
        number,
    };
    let places = FileSystem {
        working_dir: 5,
        root: 9,
    };
    let images = [
        ("inventory.img", image(&[0x5831_3116], &[vec![8, 2]])),
        (
            "pstree.img",
            image(&[COMMON, 0x5027_3030], &[process.encode_to_vec()]),
        ),
        (
            "core-1.img",
            image(&[COMMON, 0x5505_3847], &[core.encode_to_vec()]),
        ),
        ("mm-1.img", image(&[COMMON, 0x5749_2820], &[map])),
        (
            "ids-1.img",
            image(&[COMMON, 0x5443_2030], &[Ids { files: 4 }.encode_to_vec()]),
        ),
        (
            "fs-1.img",
            image(&[COMMON, 0x5140_3912], &[places.encode_to_vec()]),
        ),
        (
            "fdinfo-4.img",
            image(
                &[COMMON, 0x5621_3732],
                &[
                    descriptor(6, 3).encode_to_vec(),
                    descriptor(5, 0).encode_to_vec(),
                ],
            ),
        ),
        (
            "files.img",
            image(
                &[COMMON, 0x5630_3138],
                &[file.encode_to_vec(), socket.encode_to_vec()],
            ),
        ),
    ];
    Images(images.map(|(name, image)| (name.to_owned(), image)).into())
}

#[test]
fn a_dump_is_read() {
    let processes = processes(&dump()).unwrap();
    let [process] = &processes[..] else {
        panic!("one process");
    };
    assert_eq!((process.pid, process.threads, process.uid), (1, 2, Some(7)));
    assert_eq!(process.command, b"sleep");
    assert_eq!(process.state, State::Alive);
    assert_eq!(process.executable.as_deref(), Some(&b"/bin/sleep"[..]));
    assert_eq!(process.cwd.as_deref(), Some(&b"/bin/sleep"[..]));
    assert_eq!(process.root, None);
    let backings: Vec<_> = process
        .regions
        .iter()
        .map(|region| region.backing)
        .collect();
    let shared = Backing::Shared { id: 77, first: 1 };
    let private = Backing::Private;
    assert_eq!(backings, [Backing::PrivateFile, private, private, shared]);
    assert_eq!(&*process.regions[0].name, b"/bin/sleep");
    assert_eq!(&*process.regions[1].name, b"[heap]");
    assert_eq!(&*process.regions[2].name, b"[stack]");
    let open: Vec<_> = process
        .files
        .iter()
        .map(|open| (open.fd, open.file.kind))
        .collect();
    assert_eq!(open, [(0, "file"), (3, "tcp")]);
    let socket = &process.files[1].file;
    assert_eq!(&*socket.name, b"127.0.0.1:80");
    assert_eq!(socket.state, Some("listen"));
}

#[test]
fn what_is_missing_or_does_not_fit_is_an_error() {
    for name in ["inventory.img", "pstree.img", "core-1.img", "files.img"] {
        let mut images = dump();
        images.0.remove(name);
        let error = processes(&images).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CorruptWorld, "{name}");
        assert!(
            error.to_string().contains(name) || name == "files.img",
            "{error}"
        );
    }
    for name in ["mm-1.img", "fdinfo-4.img", "files.img", "core-1.img"] {
        let mut images = dump();
        images.0.get_mut(name).unwrap().pop();
        assert_eq!(
            processes(&images).unwrap_err().kind(),
            ErrorKind::CorruptWorld
        );
        // Everything twice.
        let mut images = dump();
        let image = images.0.get_mut(name).unwrap();
        let again = image[8..].to_vec();
        image.extend(again);
        assert_eq!(
            processes(&images).unwrap_err().kind(),
            ErrorKind::CorruptWorld
        );
    }
    let mut images = dump();
    images.0.remove("mm-1.img");
    assert!(processes(&images).unwrap()[0].regions.is_empty());
}

proptest! {
    #[test]
    fn garbage_never_panics(number in 0usize..8, bytes: Vec<u8>, keep_head: bool) {
        let mut images = dump();
        let image = images.0.values_mut().nth(number).unwrap();
        image.truncate(if keep_head { 8 } else { 0 });
        if keep_head {
            image.extend((bytes.len() as u32).to_le_bytes());
        }
        image.extend(bytes);
        let _ = processes(&images);
    }

    #[test]
    fn a_flipped_byte_never_panics(number in 0usize..8, at: prop::sample::Index, to: u8) {
        let mut images = dump();
        let image: &mut Vec<u8> = images.0.values_mut().nth(number).unwrap();
        let at = at.index(image.len());
        image[at] = to;
        let _ = processes(&images);
    }
}

#[test]
fn only_these_images_are_needed() {
    let dump: BTreeMap<_, _> = dump().0;
    assert!(dump.keys().all(|name| is_needed(name)));
    assert!(!is_needed("tmpfs-dev-61.tar.gz.img"));
    assert!(!is_needed("pagemap-1.img"));
}
