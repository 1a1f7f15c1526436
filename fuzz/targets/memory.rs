//! A world's pages index and packs come from whoever could write to a registry,
//! pagemaps with them.
//!
//! The first byte of the input says what the rest is.

use std::io::Write;
use worldshim::criu::pagemap::Pagemap;
use worldshim::memory::frame::Decoder;
use worldshim::memory::index::Index;
use worldshim::memory::pack::PackReader;
use worldshim::memory::place::Place;
use worldshim::memory::{PAGE_SIZE, addresses::Addresses};

pub fn run(bytes: &[u8]) {
    match bytes.split_first() {
        Some((0, index)) => read_index(index),
        Some((1, pack)) => read_pack(pack),
        Some((_, pagemap)) => {
            let _ = Pagemap::parse(pagemap).and_then(Pagemap::totals);
        }
        None => {}
    }
}

/// The input is an index without its checksum, which no mutation would hit upon.
fn read_index(bytes: &[u8]) {
    let sum = blake3::hash(bytes);
    let Ok(index) = Index::parse([bytes, sum.as_bytes()].concat()) else {
        return;
    };
    for file in index.files() {
        let mut pages = 0;
        for run in index.runs(file) {
            pages += u64::from(run.count);
            if let Place::Pack { pack, page } = run.place {
                assert!(page + run.count <= index.packs()[pack as usize].pages);
            }
        }
        assert_eq!(pages, file.pages);
        for space in file.spaces() {
            let addresses = Addresses::of(&index, space).expect("a space that it named");
            let counts = addresses.runs().iter().map(|(run, _)| run.count);
            assert_eq!(counts.sum::<u64>(), pages);
        }
    }
}

fn read_pack(bytes: &[u8]) {
    let mut file = tempfile::tempfile().expect("make a temporary file");
    file.write_all(bytes).expect("write it");
    let Ok(pack) = PackReader::open(file) else {
        return;
    };
    let mut decoder = Decoder::new().expect("a decoder");
    let mut frame = Vec::new();
    for number in 0..pack.frames() {
        let _ = pack.read_frame(number, &mut decoder, &mut frame);
    }
    let mut page = [0; PAGE_SIZE];
    for number in [0, pack.pages() - 1, pack.pages(), u32::MAX] {
        let _ = pack.read_page(number, &mut decoder, &mut page);
    }
}
