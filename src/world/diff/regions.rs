//! Which region of a process in one world is which in the other.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::criu::dumped::Region;

/// A region in both worlds, or in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair<'a> {
    pub before: Option<&'a Region>,
    pub after: Option<&'a Region>,
    /// It is as long and as it was, at other addresses.
    pub moved: bool,
}

/// Pairs regions that begin at the same address; of the others those that end at the same;
/// of the others those that are alike, in their order: the same program run twice has them
/// at other addresses. By rising address.
pub(super) fn matched<'a>(before: &'a [Region], after: &'a [Region]) -> Vec<Pair<'a>> {
    let mut starts: BTreeMap<u64, &Region> =
        after.iter().map(|region| (region.start, region)).collect();
    let mut pairs: Vec<Pair> = before
        .iter()
        .map(|old| Pair {
            before: Some(old),
            after: starts.remove(&old.start),
            moved: false,
        })
        .collect();
    let mut ends: BTreeMap<u64, &Region> = starts
        .values()
        .map(|region| (region.end, *region))
        .collect();
    for pair in pairs.iter_mut().filter(|pair| pair.after.is_none()) {
        pair.after = pair.before.and_then(|old| ends.remove(&old.end));
    }
    let mut alike: HashMap<_, VecDeque<&Region>> = HashMap::new();
    for region in ends.into_values() {
        alike.entry(look(region)).or_default().push_back(region);
    }
    for pair in pairs.iter_mut().filter(|pair| pair.after.is_none()) {
        let others = pair.before.and_then(|old| alike.get_mut(&look(old)));
        pair.after = others.and_then(VecDeque::pop_front);
        pair.moved = pair.after.is_some();
    }
    pairs.extend(alike.into_values().flatten().map(|new| Pair {
        before: None,
        after: Some(new),
        moved: false,
    }));
    pairs.sort_by_key(|pair| {
        let region = pair.before.or(pair.after);
        region.map(|region| (region.start, pair.before.is_none()))
    });
    pairs
}

/// What regions that are alike have in common.
fn look(region: &Region) -> (&[u8], u32, bool, u64) {
    let length = region.end - region.start;
    (&region.name, region.protection, region.shared, length)
}
