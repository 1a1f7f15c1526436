//! Every rule of a delta layer, one by one.

use super::oci::Rootfs;
use super::tree::{Body, Item, Tree, at, meta};
use super::*;

/// What the delta between two trees holds.
fn change(before: &Tree, after: &Tree) -> Vec<String> {
    let layers = two(before, after).expect("a delta will do");
    layers.get(1).map(|layer| said(layer)).unwrap_or_default()
}

/// Why there is no delta between two trees.
fn refused(before: &Tree, after: &Tree) -> String {
    two(before, after)
        .expect_err("a delta will not do")
        .to_string()
}

/// No delta layer at all.
const NOTHING: [&str; 0] = [];

fn start() -> Tree {
    Tree::new()
        .dir("etc")
        .file("etc/a", 1)
        .file("etc/b", 2)
        .dir("var")
        .dir("var/lib")
        .file("var/lib/db", 3)
}

#[test]
fn nothing_changed() {
    assert_eq!(change(&start(), &start()), NOTHING);
}

#[test]
fn a_new_file_comes_with_the_directories_that_lead_there() {
    assert_eq!(
        change(&start(), &start().file("var/lib/new", 1)),
        ["+/", "+var/", "+var/lib/", "+var/lib/new"]
    );
}

#[test]
fn changed_content_of_the_same_size_and_time_is_seen() {
    let after = start().without("etc/b").file("etc/b", 9);
    assert_eq!(change(&start(), &after), ["+/", "+etc/", "+etc/b"]);
}

#[test]
fn a_change_of_owner_mode_time_or_attribute_is_a_change() {
    let changes: [fn(&mut crate::world::rootfs::entry::Meta); 5] = [
        |meta| meta.uid = 3_000_000,
        |meta| meta.gid = 7,
        |meta| meta.mode = 0o4755,
        |meta| meta.mtime = at(-5, 3),
        |meta| meta.xattrs = vec![(b"user.a=b%".to_vec(), b"line\nbreak\0".to_vec())],
    ];
    for one in changes {
        let after = start().with_meta("etc/a", one);
        assert_eq!(change(&start(), &after), ["+/", "+etc/", "+etc/a"]);
        let after = start().with_meta("var/lib", one);
        assert_eq!(change(&start(), &after), ["+/", "+var/", "+var/lib/"]);
        let after = start().with_meta("", one);
        assert_eq!(change(&start(), &after), ["+/"]);
    }
}

#[test]
fn a_name_deleted_by_the_container_is_a_plain_whiteout() {
    let after = start().whiteout("etc/a");
    assert_eq!(change(&start(), &after), ["+/", "+etc/", "-etc/a"]);
    let after = start().without("var").whiteout("var");
    assert_eq!(change(&start(), &after), ["+/", "-var"]);
    assert_eq!(change(&after, &after.clone()), NOTHING);
}

#[test]
fn a_name_that_only_the_parent_has_is_removed_and_vanishes() {
    assert_eq!(
        change(&start(), &start().without("etc/a")),
        ["+/", "+etc/", "~etc/a"]
    );
    assert_eq!(change(&start(), &start().without("var")), ["+/", "~var"]);
    // After the last name of the archive, too.
    assert_eq!(
        change(&Tree::new().file("z", 1), &Tree::new()),
        ["+/", "~z"]
    );
}

#[test]
fn a_directory_newly_opaque_is_said_whole() {
    let after = start()
        .opaque("etc")
        .without("etc/a")
        .dir("etc/sub")
        .opaque("etc/sub/opaque")
        .whiteout("etc/sub/gone");
    assert_eq!(
        change(&start(), &after),
        [
            "+/",
            "+etc/",
            "!etc",
            "+etc/b",
            "+etc/sub/",
            "-etc/sub/gone",
            "+etc/sub/opaque/",
            "!etc/sub/opaque"
        ]
    );
}

#[test]
fn an_opaque_directory_is_not_said_again() {
    let before = start().opaque("etc");
    assert_eq!(
        change(&before, &before.clone().file("etc/c", 1).without("etc/a")),
        ["+/", "+etc/", "~etc/a", "+etc/c"]
    );
    // A new one without anything below it.
    assert_eq!(
        change(&start(), &start().opaque("new").file("new/x", 1)),
        ["+/", "+new/", "!new", "+new/x"]
    );
}

#[test]
fn what_layers_cannot_undo_needs_a_full_layer() {
    let says = |text: String| assert!(text.contains("shows the image again"), "{text}");
    // No longer opaque, no longer deleted, deleted in what is no longer there.
    says(refused(&start().opaque("etc"), &start()));
    says(refused(&start().whiteout("etc/x"), &start()));
    says(refused(
        &start().whiteout("var/lib/x"),
        &start().without("var"),
    ));
    // A transparent directory instead of what hid the one of the image.
    says(refused(&start().whiteout("x"), &start().dir("x")));
}

#[test]
fn where_the_image_does_not_show_anyway_all_can_be_said() {
    let inner = |tree: Tree| tree.dir("o/d").file("o/d/x", 1);
    let opaque = start().opaque("o");
    assert_eq!(
        change(&opaque.clone().file("o/d", 1), &inner(opaque.clone())),
        ["+/", "+o/", "+o/d/", "+o/d/x"]
    );
    assert_eq!(
        change(&opaque.clone().whiteout("o/d"), &opaque),
        ["+/", "+o/", "~o/d"]
    );
}

#[test]
fn types_change_into_each_other() {
    let others = [
        Body::Symlink(b"../etc".to_vec()),
        Body::Fifo,
        Body::Socket,
        Body::Device {
            block: false,
            major: 1,
            minor: 3,
        },
        Body::Device {
            block: true,
            major: 8,
            minor: 0x1_0000,
        },
        super::tree::text(7),
    ];
    for body in &others {
        let after = start().without("var").body("var", body.clone());
        assert_eq!(change(&start(), &after), ["+/", "+var"]);
        for other in others.iter().filter(|other| *other != body) {
            let next = after.clone().without("var").body("var", other.clone());
            assert_eq!(change(&after, &next), ["+/", "+var"]);
        }
        let dir = after.clone().without("var").dir("var").file("var/x", 1);
        assert_eq!(change(&after, &dir), ["+/", "+var/", "+var/x"]);
        let back = after.without("var").opaque("var").file("var/x", 1);
        let layers = [start(), back.clone()];
        assert_eq!(
            change(
                &layers[0].clone().without("var").body("var", body.clone()),
                &back
            ),
            ["+/", "+var/", "!var", "+var/x"]
        );
    }
}

#[test]
fn symlinks_and_devices_change_their_targets() {
    let of = |body| start().body("x", body);
    let link = |to: &[u8]| Body::Symlink(to.repeat(120));
    assert_eq!(change(&of(link(b"a")), &of(link(b"b"))), ["+/", "+x"]);
    let device = |minor| Body::Device {
        block: true,
        major: 8,
        minor,
    };
    assert_eq!(change(&of(device(1)), &of(device(2))), ["+/", "+x"]);
    assert_eq!(change(&of(device(1)), &of(device(1))), NOTHING);
}

#[test]
fn all_names_of_a_changed_file_are_said() {
    let before = start().link("etc/z", "etc/a").link("var/lib/a", "etc/a");
    // Changed through any name; one more name; a name fewer is only removed.
    let other = start().without("etc/a").file("etc/a", 9);
    let other = other.link("etc/z", "etc/a").link("var/lib/a", "etc/a");
    let all = [
        "+/",
        "+etc/",
        "+etc/a",
        "=etc/z",
        "+var/",
        "+var/lib/",
        "=var/lib/a",
    ];
    assert_eq!(change(&before, &other), all);
    let more = before.clone().link("zz", "etc/a");
    assert_eq!(change(&before, &more), [&all[..], &["=zz"]].concat());
    let fewer = before.clone().without("etc/z");
    assert_eq!(change(&before, &fewer), ["+/", "+etc/", "~etc/z"]);
    // The first name goes, so the others are told anew.
    let fewer = before.clone().without("etc/a");
    assert_eq!(
        change(&before, &fewer),
        [
            "+/",
            "+etc/",
            "~etc/a",
            "+etc/z",
            "+var/",
            "+var/lib/",
            "=var/lib/a"
        ]
    );
    // One name becomes a file of its own, with the same bytes.
    let apart = before.clone().without("etc/z").file("etc/z", 1);
    assert_eq!(change(&before, &apart), ["+/", "+etc/", "+etc/z"]);
    // Two files of the same bytes become one.
    let copies = Tree::new().file("a", 1).file("b", 1).file("c", 1);
    let linked = copies.clone().without("b").link("b", "a");
    assert_eq!(change(&copies, &linked), ["+/", "+a", "=b"]);
    assert_eq!(change(&linked, &copies), ["+/", "+b"]);
}

#[test]
fn a_name_in_a_new_opaque_directory_pulls_its_others_along() {
    let before = start().link("var/lib/a", "etc/a");
    let after = before.clone().opaque("var/lib");
    assert_eq!(
        change(&before, &after),
        [
            "+/",
            "+etc/",
            "+etc/a",
            "+var/",
            "+var/lib/",
            "!var/lib",
            "=var/lib/a",
            "+var/lib/db"
        ]
    );
    let after = before.clone().opaque("etc");
    assert_eq!(
        change(&before, &after),
        [
            "+/",
            "+etc/",
            "!etc",
            "+etc/a",
            "+etc/b",
            "+var/",
            "+var/lib/",
            "=var/lib/a"
        ]
    );
}

#[test]
fn holes_are_content() {
    let sparse = |seed, segments| Body::File {
        seed,
        size: 1 << 40,
        segments: Some(segments),
    };
    let of = |body| start().body("var/s", body);
    let before = of(sparse(1, vec![(0, 4096), (1 << 30, 700)]));
    assert_eq!(change(&before, &before.clone()), NOTHING);
    let changes = [
        sparse(2, vec![(0, 4096), (1 << 30, 700)]),
        sparse(1, vec![(0, 4096), (1 << 31, 700)]),
        sparse(1, vec![(0, 4096)]),
        sparse(1, vec![]),
    ];
    for body in changes {
        let after = before.clone().without("var/s").body("var/s", body);
        assert_eq!(change(&before, &after), ["+/", "+var/", "+var/s"]);
        assert_eq!(change(&after, &before), ["+/", "+var/", "+var/s"]);
    }
}

#[test]
fn names_may_be_any_bytes_and_sort_by_them() {
    let mut before = Tree::new().dir("a").file("a/x", 1);
    for name in [
        &b"a!"[..],
        b"a.b",
        b"a-",
        b"\xff\xfe",
        b"a\n",
        &[b'n'; 255],
        b"\xc3\x28",
    ] {
        before.add(name, super::tree::text(1), meta(0o600));
    }
    let mut after = before.clone();
    after.remove(b"a.b");
    after.remove(&[b'n'; 255]);
    after.put(b"\xff\xfe", Item::Whiteout);
    after.add(
        &[&b"a/"[..], &[0xfe; 255]].concat(),
        super::tree::text(2),
        meta(0o600),
    );
    let layers = two(&before, &after).expect("a delta will do");
    assert_eq!(said(&layers[1]).len(), 6);
}

#[test]
fn trees_may_be_as_deep_as_a_layer_allows() {
    let deep = |last: &str| {
        let mut tree = Tree::new();
        let mut path = String::new();
        for _ in 0..399 {
            path += "d/";
            tree = tree.dir(path.trim_end_matches('/'));
        }
        tree.file(&format!("{path}{last}"), 1)
    };
    assert_eq!(change(&deep("x"), &deep("y")).len(), 402);
}

#[test]
fn a_chain_of_layers_forgets_and_remembers() {
    let worlds = [
        start(),
        start().without("etc/a").whiteout("var/lib/db"),
        start().without("etc").file("var/lib/db", 8),
        start()
            .without("etc")
            .without("var")
            .opaque("etc")
            .file("etc/a", 4)
            .whiteout("var"),
        start()
            .without("etc")
            .without("var")
            .opaque("etc")
            .opaque("var")
            .dir("var/lib"),
    ];
    let mut layers = vec![full(&worlds[0].tar())];
    for world in &worlds[1..] {
        let tar = world.tar();
        layers.push(delta(&tar, &layers).expect("a delta will do"));
        assert!(merged(&layers, &tar).expect("merge") == tar);
        let plain: Vec<_> = layers.iter().map(|layer| unpacked(layer)).collect();
        let applied = Rootfs::of(plain.iter().map(Vec::as_slice)).seen();
        assert!(applied == Rootfs::of([&tar[..]]).seen());
    }
}

#[test]
fn a_chain_does_not_grow_for_ever() {
    let tar = |seed| start().file("new", seed).tar();
    let mut layers = vec![full(&tar(0))];
    for seed in 1..8 {
        layers.push(delta(&tar(seed), &layers).expect("a delta will do"));
    }
    assert_eq!(layers.len(), MOST_LAYERS);
    // The same world needs no more; another one begins on the first layer again.
    let same = layers_within(&tar(7), &layers, u64::MAX).expect("nothing to do");
    assert!(same == layers);
    let next = layers_within(&tar(8), &layers, u64::MAX).expect("a delta will do");
    assert_eq!(next.len(), 2);
    assert!(next[0] == layers[0]);
    assert!(merged(&next, &tar(8)).expect("merge") == tar(8));
}

#[test]
fn deltas_that_do_not_pay_are_not_made() {
    let tar = |seed| start().file("new", seed).tar();
    let why = layers_within(&tar(9), &[full(&tar(0))], 1024);
    assert!(matches!(why, Err(WhyFull::TooMuchChanged)));
    let big = |seed| {
        let size = 2 << 20;
        let body = Body::File {
            seed,
            size,
            segments: None,
        };
        start().body("big", body).tar()
    };
    let base = [full(&big(1))];
    let delta = delta(&big(2), &base).expect("as long as two are allowed");
    let layers = [&base[..], &[delta]].concat();
    // A third one, or what is dead in the first alone.
    let next = layers_within(&big(3), &layers, u64::MAX).expect("onto the first");
    assert_eq!(next.len(), 2);
    let small = layers_within(&start().tar(), &base, u64::MAX);
    assert!(matches!(small, Err(WhyFull::Parent(_))));
}

#[test]
fn the_same_worlds_give_the_same_layers() {
    let (a, b) = (start().tar(), start().file("etc/c", 4).tar());
    assert!(full(&a) == full(&a));
    let layers = [full(&a)];
    assert!(delta(&b, &layers).unwrap() == delta(&b, &layers).unwrap());
}

#[test]
fn a_damaged_parent_is_no_reason_to_fail() {
    let (a, b) = (start().tar(), start().file("etc/c", 4).tar());
    let layer = full(&a);
    for damaged in [&layer[..layer.len() / 2], b"", b"no zstd", &layer[1..]] {
        let why = delta(&b, &[damaged.to_vec()]).expect_err("a damaged parent");
        assert!(matches!(why, WhyFull::Parent(_)), "{why}");
    }
    let mut flipped = layer.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(matches!(delta(&b, &[flipped]), Err(WhyFull::Parent(_))));
}
