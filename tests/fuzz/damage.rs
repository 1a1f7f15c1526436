//! What is done to a seed: bytes changed, put in, taken out, moved, taken from another.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// Numbers at which lengths, counts and offsets go wrong.
const EDGES: [u64; 10] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    u64::MAX,
];

/// One seed and what is done to it.
#[derive(Debug, Clone)]
pub struct Damage {
    seed: Index,
    changes: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Flip {
        at: Index,
        bit: u8,
    },
    Byte {
        at: Index,
        byte: u8,
    },
    Edge {
        at: Index,
        number: usize,
        width: usize,
    },
    Cut {
        at: Index,
    },
    Remove {
        at: Index,
        length: usize,
    },
    Insert {
        at: Index,
        bytes: Vec<u8>,
    },
    Repeat {
        from: Index,
        at: Index,
        length: usize,
    },
    Splice {
        seed: Index,
        from: Index,
        at: Index,
        length: usize,
    },
}

impl Damage {
    /// Any damage to any seed.
    pub fn any() -> impl Strategy<Value = Damage> {
        let changes = vec(change(), 1..6);
        (any::<Index>(), changes).prop_map(|(seed, changes)| Damage { seed, changes })
    }

    /// The seed, damaged.
    pub fn apply(&self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.seed.index(seeds.len())].clone();
        for change in &self.changes {
            change.apply(&mut bytes, seeds);
        }
        bytes
    }
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    // Mostly short, now and then blocks of a tar.
    let length = || prop_oneof![4 => 1usize..32, 1 => (1usize..4).prop_map(|n| n * 512)];
    prop_oneof![
        (at(), 0u8..8).prop_map(|(at, bit)| Change::Flip { at, bit }),
        (at(), any::<u8>()).prop_map(|(at, byte)| Change::Byte { at, byte }),
        (
            at(),
            0..EDGES.len(),
            prop_oneof![Just(1usize), Just(2), Just(4), Just(8)]
        )
            .prop_map(|(at, number, width)| Change::Edge { at, number, width }),
        at().prop_map(|at| Change::Cut { at }),
        (at(), length()).prop_map(|(at, length)| Change::Remove { at, length }),
        (at(), vec(any::<u8>(), 1..16)).prop_map(|(at, bytes)| Change::Insert { at, bytes }),
        (at(), at(), length()).prop_map(|(from, at, length)| Change::Repeat { from, at, length }),
        (at(), at(), at(), length()).prop_map(|(seed, from, at, length)| Change::Splice {
            seed,
            from,
            at,
            length
        }),
    ]
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let end = bytes.len();
        if end == 0 {
            return;
        }
        match self {
            Change::Flip { at, bit } => bytes[at.index(end)] ^= 1 << bit,
            Change::Byte { at, byte } => bytes[at.index(end)] = *byte,
            Change::Edge { at, number, width } => {
                let at = at.index(end);
                let width = (*width).min(end - at);
                bytes[at..at + width].copy_from_slice(&EDGES[*number].to_le_bytes()[..width]);
            }
            Change::Cut { at } => bytes.truncate(at.index(end)),
            Change::Remove { at, length } => {
                let at = at.index(end);
                bytes.drain(at..end.min(at + length));
            }
            Change::Insert { at, bytes: new } => {
                let at = at.index(end);
                bytes.splice(at..at, new.iter().copied());
            }
            Change::Repeat { from, at, length } => {
                let piece = piece(bytes, from, *length);
                let at = at.index(end);
                bytes.splice(at..at, piece);
            }
            Change::Splice {
                seed,
                from,
                at,
                length,
            } => {
                let piece = piece(&seeds[seed.index(seeds.len())], from, *length);
                let at = at.index(end);
                let until = end.min(at + piece.len());
                bytes.splice(at..until, piece);
            }
        }
    }
}

fn piece(bytes: &[u8], from: &Index, length: usize) -> Vec<u8> {
    let from = from.index(bytes.len().max(1)).min(bytes.len());
    bytes[from..bytes.len().min(from + length)].to_vec()
}
