//! A pack and an index of format 1 that every version must read.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::frame::Decoder;
use super::index::{Index, PackRef};
use super::index_writer::IndexWriter;
use super::pack::PackReader;
use super::page::{PAGE_SIZE, PageHash};
use super::place::{Place, Run};
use crate::criu::pagemap::{Extent, Space};
use crate::digest::Digest;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/memory-v1")
        .join(name)
}

/// 16 pages that begin with their number, then one that does not compress.
fn page(number: u8) -> [u8; PAGE_SIZE] {
    let mut page = [0; PAGE_SIZE];
    match number {
        16 => blake3::Hasher::new().finalize_xof().fill(&mut page),
        _ => page[0] = number + 1,
    }
    page
}

#[test]
fn the_pack_is_read() {
    let pack = PackReader::open(File::open(golden("pack")).unwrap()).unwrap();
    assert_eq!((pack.pages(), pack.frames()), (17, 2));
    assert!(!pack.is_raw(0) && pack.is_raw(1));
    let mut decoder = Decoder::new().unwrap();
    for number in 0..17u8 {
        let mut read = [0; PAGE_SIZE];
        pack.read_page(number.into(), &mut decoder, &mut read)
            .unwrap();
        assert_eq!(read, page(number), "page {number}");
        assert_eq!(pack.hash(number.into()).unwrap(), PageHash::of(&read));
    }
}

#[test]
fn the_index_is_read_and_written_to_the_same_bytes() {
    let bytes = std::fs::read(golden("index")).unwrap();
    let pack = std::fs::read(golden("pack")).unwrap();
    let packs = [PackRef {
        digest: Digest::of(&pack),
        pages: 17,
    }];
    let stored = |page, count| Run {
        place: Place::Pack { pack: 0, page },
        count,
    };
    let zeros = Run {
        place: Place::Zero,
        count: 300,
    };
    let runs = [stored(0, 17), zeros, stored(3, 2)];
    let extent = |page, count| Extent { page, count };
    let extents = [extent(0x400, 9), extent(0x7fff_0000, 310)];
    let mut writer = IndexWriter::new(Vec::new(), &packs, 2).unwrap();
    writer.file(1, 319, 1).unwrap();
    writer
        .space(Space::Process(1), 2, extents.into_iter().map(Ok))
        .unwrap();
    for run in runs {
        writer.run(run).unwrap();
    }
    writer.file(2, 1, 1).unwrap();
    writer
        .space(Space::Shared(7), 1, std::iter::once(Ok(extent(0, 1))))
        .unwrap();
    writer.run(stored(16, 1)).unwrap();
    assert_eq!(writer.finish().unwrap(), bytes);

    let index = Index::parse(bytes).unwrap();
    assert_eq!(index.packs(), packs);
    assert_eq!(index.runs(&index.files()[0]).collect::<Vec<_>>(), runs);
    let addresses: Vec<_> = index.addresses(Space::Shared(7)).unwrap().collect();
    assert_eq!(addresses, [(extent(0, 1), stored(16, 1).place)]);
}
