//! Capture, bring back elsewhere: identical.

use crate::scratch::{all_allowed, scratch, upper};
use crate::{snapshot, tree};
use proptest::prelude::*;
use std::io::Cursor;
use worldshim::world::rootfs::{Upper, bring_back, capture, same_as, verify};

fn captured(upper: &Upper) -> Vec<u8> {
    let mut tar = Vec::new();
    let totals = capture(upper, &mut tar).expect("capture");
    assert_eq!(totals.archive, tar.len() as u64);
    let seen = verify(
        Cursor::new(&tar),
        upper.layering(),
        &all_allowed(),
        Some(&totals),
    );
    assert_eq!(seen.expect("verify"), totals);
    tar
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_comes_back_identical(
        steps in tree::trees(),
        before in tree::trees(),
        shared in any::<prop::sample::Index>(),
    ) {
        let dir = scratch();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir(&from).unwrap();
        std::fs::create_dir(&to).unwrap();
        tree::build(&from, &steps);
        // The destination holds a part of it, and something else.
        let shared = &steps[..shared.index(steps.len() + 1)];
        tree::build(&to, &[shared, &before].concat());

        let tar = captured(&upper(&from));
        prop_assert!(tar == captured(&upper(&from)), "two captures differ");
        prop_assert!(same_as(&upper(&from), Cursor::new(&tar)).unwrap());

        bring_back(&upper(&to), Cursor::new(&tar), &all_allowed(), None).unwrap();
        let (expected, found) = (snapshot::of(&from), snapshot::of(&to));
        for (path, node) in &expected {
            prop_assert_eq!(Some(node), found.get(path), "{}", path.escape_ascii());
        }
        prop_assert_eq!(expected.len(), found.len());
        prop_assert!(same_as(&upper(&to), Cursor::new(&tar)).unwrap());
        prop_assert!(tar == captured(&upper(&to)), "the copy's capture differs");
    }
}
