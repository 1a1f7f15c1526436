//! What is written into a pages index is what is read from it; nothing else passes.

use proptest::prelude::*;

use super::index::{Index, PackRef};
use super::index_writer::IndexWriter;
use super::place::{Place, Run};
use crate::Result;
use crate::criu::pagemap::{Extent, Space};
use crate::digest::Digest;

const PACKS: u32 = 3;
const PAGES: u32 = 100;

fn packs() -> Vec<PackRef> {
    let pack = |number: u32| PackRef {
        digest: Digest::of(&number.to_le_bytes()),
        pages: PAGES,
    };
    (0..PACKS).map(pack).collect()
}

type File = Vec<Run>;

fn run() -> impl Strategy<Value = Run> {
    let stored = (0..PACKS, 0..PAGES, 1..PAGES).prop_map(|(pack, page, count)| Run {
        place: Place::Pack { pack, page },
        count: count.min(PAGES - page),
    });
    let zero = (1u32..200_000).prop_map(|count| Run {
        place: Place::Zero,
        count,
    });
    prop_oneof![3 => stored, 1 => zero]
}

fn files() -> impl Strategy<Value = Vec<File>> {
    prop::collection::vec(prop::collection::vec(run(), 0..20), 0..5)
}

fn pages(file: &File) -> u64 {
    file.iter().map(|run| u64::from(run.count)).sum()
}

/// The file's pages, ten at a time with a page between.
fn extents(file: &File) -> Vec<Extent> {
    let pages = pages(file);
    let extent = |first: u64| Extent {
        page: 0x40_0000 + first / 10 * 11,
        count: (pages - first).min(10),
    };
    (0..pages.min(1000)).step_by(10).map(extent).collect()
}

/// Extents for small files; one process each, and a shared memory for the others.
fn write(files: &[File]) -> Vec<u8> {
    let mut writer = IndexWriter::new(Vec::new(), &packs(), files.len()).unwrap();
    for (id, file) in files.iter().enumerate() {
        let spaces = usize::from(pages(file) <= 1000);
        writer.file(id as u32 * 2, pages(file), spaces).unwrap();
        if spaces == 1 {
            let extents = extents(file);
            let count = extents.len() as u64;
            let extents = extents.into_iter().map(Ok);
            writer
                .space(Space::Process(id as u64), count, extents)
                .unwrap();
        }
        for run in file {
            writer.run(*run).unwrap();
        }
    }
    writer.finish().unwrap()
}

/// A run for every page: what does not depend on how runs are joined.
fn singles(runs: impl Iterator<Item = Run>) -> Vec<Run> {
    runs.flat_map(|run| (0..run.count).map(move |at| Run { count: 1, ..run }.skip_to(at)))
        .collect()
}

impl Run {
    fn skip_to(self, at: u32) -> Run {
        Run {
            place: self.place.after(at),
            ..self
        }
    }
}

fn read(bytes: Vec<u8>) -> Result<Index> {
    Index::parse(bytes)
}

/// The bytes with a checksum that fits.
fn summed(mut body: Vec<u8>) -> Vec<u8> {
    let sum = blake3::hash(&body);
    body.extend(sum.as_bytes());
    body
}

fn small() -> Vec<File> {
    let stored = |pack, page, count| Run {
        place: Place::Pack { pack, page },
        count,
    };
    let zero = Run {
        place: Place::Zero,
        count: 300,
    };
    vec![
        vec![stored(0, 5, 20), zero, stored(1, 0, 1)],
        vec![],
        vec![stored(2, 99, 1), stored(0, 5, 2)],
    ]
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let whole = write(&small());
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        assert!(read(flipped).is_err(), "byte {at}");
        assert!(read(whole[..at].to_vec()).is_err(), "cut at {at}");
    }
}

#[test]
fn a_forged_index_is_read_within_its_bounds() {
    let whole = write(&small());
    let body = &whole[..whole.len() - 32];
    for at in 0..body.len() {
        for bit in 0..8 {
            let mut forged = body.to_vec();
            forged[at] ^= 1 << bit;
            use_all(read(summed(forged)));
        }
        assert!(read(summed(body[..at].to_vec())).is_err(), "cut at {at}");
    }
}

/// Whatever is taken has places within its packs.
fn use_all(index: Result<Index>) {
    let Ok(index) = index else { return };
    for file in index.files() {
        let mut sum = 0;
        for run in index.runs(file) {
            sum += u64::from(run.count);
            if let Place::Pack { pack, page } = run.place {
                assert!(page + run.count <= index.packs()[pack as usize].pages);
            }
        }
        assert_eq!(sum, file.pages);
        for space in file.spaces() {
            let extents = index.addresses(space).unwrap();
            assert_eq!(extents.map(|(extent, _)| extent.count).sum::<u64>(), sum);
        }
    }
}

proptest! {
    #[test]
    fn indexes_come_back(files in files()) {
        let index = read(write(&files)).unwrap();
        prop_assert_eq!(index.packs(), packs());
        prop_assert_eq!(index.files().len(), files.len());
        for (read, file) in index.files().iter().zip(&files) {
            prop_assert_eq!(read.pages, pages(file));
            let mut joined: Vec<Run> = Vec::new();
            for run in file {
                if !joined.last_mut().is_some_and(|last| last.join(*run)) {
                    joined.push(*run);
                }
            }
            prop_assert_eq!(index.runs(read).collect::<Vec<_>>(), joined);
        }
    }

    #[test]
    fn addresses_lead_to_their_pages(files in files()) {
        let index = read(write(&files)).unwrap();
        for (id, file) in files.iter().enumerate().filter(|(_, file)| pages(file) <= 1000) {
            let pages = singles(file.iter().copied());
            let addresses: Vec<u64> =
                extents(file).iter().flat_map(|e| e.page..e.page + e.count).collect();
            let found = index.addresses(Space::Process(id as u64)).unwrap();
            let found: Vec<(u64, Run)> = found
                .flat_map(|(extent, place)| {
                    (0..extent.count).map(move |at| {
                        let place = place.after(at as u32);
                        (extent.page + at, Run { place, count: 1 })
                    })
                })
                .collect();
            prop_assert_eq!(found, addresses.into_iter().zip(pages).collect::<Vec<_>>());
        }
        prop_assert!(index.addresses(Space::Shared(7)).is_none());
    }

    #[test]
    fn garbage_never_panics(mut bytes: Vec<u8>) {
        use_all(read(bytes.clone()));
        bytes.splice(0..0, *b"wspages1");
        use_all(read(summed(bytes)));
    }
}
