//! CRIU's images of processes, memory maps and open files.

use worldshim::ErrorKind;
use worldshim::criu::dumped::{Images, processes};

const NAMES: [&str; 9] = [
    "inventory.img",
    "pstree.img",
    "core-1.img",
    "ids-1.img",
    "mm-1.img",
    "fs-1.img",
    "fdinfo-1.img",
    "files.img",
    "memfd.img",
];
/// What they begin with, after the magic that is common to all but the first.
const MAGIC: [u32; 9] = [
    0x5831_3116,
    0x5027_3030,
    0x5505_3847,
    0x5443_2030,
    0x5749_2820,
    0x5140_3912,
    0x5621_3732,
    0x5630_3138,
    0x4845_3499,
];

// Messages, each after a byte that says which image it is in, and its length in two bytes.
pub fn run(bytes: &[u8]) {
    let mut images = Images::default();
    for (name, magic) in NAMES.iter().zip(MAGIC) {
        let image: &mut Vec<u8> = images.0.entry((*name).to_owned()).or_default();
        if *name != NAMES[0] {
            image.extend(0x5456_4319u32.to_le_bytes());
        }
        image.extend(magic.to_le_bytes());
    }
    let mut rest = bytes;
    while let Some(([which, low, high], tail)) = rest.split_first_chunk::<3>() {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(tail.len());
        let (message, tail) = tail.split_at(length);
        let name = NAMES[usize::from(*which) % NAMES.len()];
        let image = images.0.entry(name.to_owned()).or_default();
        image.extend((length as u32).to_le_bytes());
        image.extend(message);
        rest = tail;
    }
    match processes(&images) {
        Ok(processes) => assert!(!processes.is_empty()),
        Err(error) => assert!(matches!(
            error.kind(),
            ErrorKind::CorruptWorld | ErrorKind::ForeignWorld
        )),
    }
}
