//! Which known packs a world does not refer to, although they have some of its pages.
//!
//! A world needs all packs that it refers to, whole, wherever it is carried. So it
//! leaves packs, and stores the pages that they have for it again, until:
//!
//! 1. it uses at least a quarter of every pack;
//! 2. all packs together have at most twice the pages that it uses;
//! 3. of small packs (less than [`SMALL`] pages used) there are at most [`MOST_ALIKE`]
//!    of each class, whose use differs by less than four times. Else those, and all
//!    smaller ones, go.
//!
//! The packs that are written then count as well, so that packing the same memory
//! again finds nothing to leave. In a row of worlds that each change a little, a
//! page is thereby stored again at most once per class (seven times), and a
//! world of N pages refers to at most N / 8,192 + 30 packs.

use super::pack::PACK_PAGES;

/// A pack that a world uses less of is small.
pub const SMALL: u32 = PACK_PAGES / 4;
/// Most small packs that are about alike.
pub const MOST_ALIKE: usize = 4;

/// How much a world uses of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// How many of its pages the world uses.
    pub used: u32,
    /// How many pages it has.
    pub pages: u32,
}

/// Which of the packs in use to leave, if `new` pages will be stored in any case:
/// one answer for each.
pub fn choose(uses: &[Use], new: u64) -> Vec<bool> {
    let mut left = vec![false; uses.len()];
    let mut new = new;
    loop {
        let kept: Vec<usize> = (0..uses.len()).filter(|at| !left[*at]).collect();
        let leave = next_to_leave(uses, &kept, new);
        if leave.is_empty() {
            return left;
        }
        for at in leave {
            left[at] = true;
            new += u64::from(uses[at].used);
        }
    }
}

fn next_to_leave(uses: &[Use], kept: &[usize], new: u64) -> Vec<usize> {
    let hardly_used = |at: &usize| u64::from(uses[*at].used) * 4 < u64::from(uses[*at].pages);
    let leave: Vec<usize> = kept.iter().copied().filter(hardly_used).collect();
    if !leave.is_empty() {
        return leave;
    }
    let sum = |of: fn(&Use) -> u32| kept.iter().map(|at| u64::from(of(&uses[*at]))).sum::<u64>();
    if new + sum(|pack| pack.pages) > 2 * (new + sum(|pack| pack.used)) {
        // Ties go to the first, so that the answer is always the same.
        let least = kept.iter().copied().min_by(|a, b| {
            let share =
                |at: usize, other: usize| u64::from(uses[at].used) * u64::from(uses[other].pages);
            share(*a, *b).cmp(&share(*b, *a))
        });
        return least.into_iter().collect();
    }
    alike(uses, kept, new)
}

/// The class of a small pack.
fn class(used: u32) -> Option<u32> {
    (used < SMALL).then(|| used.max(1).ilog2() / 2)
}

fn alike(uses: &[Use], kept: &[usize], new: u64) -> Vec<usize> {
    // The rest that does not fill a pack.
    let rest = (new % u64::from(PACK_PAGES)) as u32;
    let written = (rest > 0).then(|| class(rest)).flatten();
    let full = (0..=SMALL.ilog2() / 2).rev().find(|wanted| {
        let same = kept
            .iter()
            .filter(|at| class(uses[**at].used) == Some(*wanted));
        same.count() + usize::from(written == Some(*wanted)) > MOST_ALIKE
    });
    let gone = |at: &usize| class(uses[*at].used).is_some_and(|class| Some(class) <= full);
    kept.iter().copied().filter(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn uses(packs: &[(u32, u32)]) -> Vec<Use> {
        packs
            .iter()
            .map(|(used, pages)| Use {
                used: *used,
                pages: *pages,
            })
            .collect()
    }

    #[test]
    fn what_is_well_used_stays() {
        let packs = uses(&[(PACK_PAGES, PACK_PAGES), (20_000, 30_000), (100, 150)]);
        assert_eq!(choose(&packs, 0), [false; 3]);
        assert_eq!(choose(&packs, 700), [false; 3]);
        assert!(choose(&[], 5).is_empty());
    }

    #[test]
    fn a_pack_that_is_hardly_used_goes() {
        let packs = uses(&[(PACK_PAGES, PACK_PAGES), (24, 100), (25, 100)]);
        assert_eq!(choose(&packs, 0), [false, true, false]);
    }

    #[test]
    fn dead_weight_is_at_most_half() {
        let packs = uses(&[(30, 100), (26, 100), (60, 100)]);
        assert_eq!(choose(&packs, 0), [false, true, false]);
    }

    #[test]
    fn many_small_packs_become_one() {
        let packs = uses(&[(700, 700); 4]);
        assert_eq!(choose(&packs, 10), [false; 4]);
        assert_eq!(choose(&packs, 700), [true; 4]);
        let packs = uses(&[
            (5, 5),
            (2000, 2000),
            (700, 700),
            (700, 700),
            (700, 700),
            (700, 700),
        ]);
        assert_eq!(choose(&packs, 700), [true, false, true, true, true, true]);
    }

    proptest! {
        #[test]
        fn what_is_left_is_in_order(
            packs in prop::collection::vec((1..=PACK_PAGES, 0u32..=1000), 0..60),
            new in 0u64..200_000,
        ) {
            let packs: Vec<Use> = packs
                .into_iter()
                .map(|(pages, share)| Use { used: (pages * share / 1000).max(1), pages })
                .collect();
            let left = choose(&packs, new);
            let kept = packs.iter().zip(&left).filter(|(_, left)| !**left).map(|(pack, _)| *pack);
            let mut after: Vec<Use> = kept.collect();
            let gone = packs.iter().zip(&left).filter(|(_, left)| **left);
            let mut written = new + gone.map(|(pack, _)| u64::from(pack.used)).sum::<u64>();
            while written > 0 {
                let pages = written.min(PACK_PAGES.into()) as u32;
                after.push(Use { used: pages, pages });
                written -= u64::from(pages);
            }
            // Packing the same again leaves nothing.
            prop_assert_eq!(choose(&after, 0), vec![false; after.len()]);
            let used: u64 = after.iter().map(|pack| u64::from(pack.used)).sum();
            let pages: u64 = after.iter().map(|pack| u64::from(pack.pages)).sum();
            prop_assert!(pages <= 2 * used);
            prop_assert!(after.len() as u64 <= used / u64::from(SMALL) + 30);
        }
    }
}
