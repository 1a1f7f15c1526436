//! What differs between two worlds: every rule, and against a model.

use super::tree::{Body, Tree, at};
use super::*;
use crate::world::rootfs::layers::{Change, Layers, Seen, changes};

/// What differs, one line a name: before, after, aspects.
fn compare(before: &[Vec<u8>], after: &[Vec<u8>], promised: [Expected; 2]) -> Vec<String> {
    let mut before: Vec<_> = before.iter().map(Vec::as_slice).collect();
    let mut after: Vec<_> = after.iter().map(Vec::as_slice).collect();
    let mut lines = Vec::new();
    let side = |layers, expected, name: &str| Layers {
        layers,
        expected,
        name: name.to_owned(),
    };
    changes(
        side(&mut before, promised[0], "before"),
        side(&mut after, promised[1], "after"),
        &mut |change| {
            lines.push(line(&change));
            Ok(())
        },
    )
    .expect("layers that are whole");
    lines
}

fn line(change: &Change) -> String {
    let word = |seen: &Seen| match seen {
        Seen::Here(inode) if inode.over_image => format!("{}+", inode.kind),
        Seen::Here(inode) => inode.kind.to_owned(),
        Seen::Nothing => "-".to_owned(),
        Seen::Image => "image".to_owned(),
    };
    format!(
        "/{} {} {} {}",
        String::from_utf8_lossy(&change.path),
        word(&change.before),
        word(&change.after),
        change.aspects.names().join(",")
    )
    .trim_end()
    .to_owned()
}

/// What differs, whichever layers the worlds are.
fn differences(before: &Tree, after: &Tree) -> Vec<String> {
    let tars = [before.tar(), after.tar()];
    let promised = [expected(&tars[0]), expected(&tars[1])];
    let lines = compare(&[full(&tars[0])], &[full(&tars[1])], promised);
    if let Ok(layers) = two(before, after) {
        assert_eq!(lines, compare(&layers[..1], &layers, promised));
        // And back.
        let back = compare(&layers, &layers[..1], [promised[1], promised[0]]);
        assert_eq!(lines.len(), back.len());
    }
    lines
}

const NOTHING: [&str; 0] = [];

fn start() -> Tree {
    Tree::new()
        .dir("etc")
        .file("etc/a", 1)
        .file("etc/b", 2)
        .whiteout("gone")
        .opaque("new")
        .file("new/x", 3)
}

#[test]
fn nothing_differs() {
    assert_eq!(differences(&start(), &start()), NOTHING);
}

#[test]
fn each_aspect_is_told() {
    let other = |change: fn(&mut crate::world::rootfs::entry::Meta)| {
        differences(&start(), &start().with_meta("etc/a", change))
    };
    assert_eq!(other(|meta| meta.mode = 0o600), ["/etc/a file file mode"]);
    assert_eq!(other(|meta| meta.gid = 6), ["/etc/a file file owner"]);
    assert_eq!(
        other(|meta| meta.mtime = at(1, 0)),
        ["/etc/a file file time"]
    );
    assert_eq!(
        other(|meta| meta.xattrs = vec![(b"user.x".to_vec(), vec![])]),
        ["/etc/a file file attributes"]
    );
    let after = start().without("etc/a").file("etc/a", 9);
    assert_eq!(differences(&start(), &after), ["/etc/a file file content"]);
    let link = |to: &str| start().body("ln", Body::Symlink(to.into()));
    assert_eq!(
        differences(&link("a"), &link("b")),
        ["/ln symlink symlink target"]
    );
    let device = |minor| {
        let body = Body::Device {
            block: false,
            major: 1,
            minor,
        };
        start().body("dev", body)
    };
    assert_eq!(
        differences(&device(3), &device(5)),
        ["/dev char-device char-device type"]
    );
    let after = start().without("etc/a").body("etc/a", Body::Fifo);
    assert_eq!(differences(&start(), &after), ["/etc/a file fifo type"]);
}

#[test]
fn the_time_of_a_directory_does_not_count() {
    let after = start().with_meta("etc", |meta| meta.mtime = at(7, 7));
    assert_eq!(differences(&start(), &after), NOTHING);
    let after = start().with_meta("etc", |meta| meta.mode = 0o700);
    assert_eq!(
        differences(&start(), &after),
        ["/etc directory+ directory+ mode"]
    );
}

#[test]
fn what_only_one_layer_has_may_be_the_images() {
    let after = start()
        .file("etc/c", 1)
        .file("new/y", 1)
        .dir("usr")
        .dir("new/d");
    assert_eq!(
        differences(&start(), &after),
        [
            "/etc/c image file",
            "/new/d - directory",
            "/new/y - file",
            "/usr image directory+"
        ]
    );
    let after = start().without("etc/b").without("new/x").without("gone");
    assert_eq!(
        differences(&start(), &after),
        ["/etc/b file image", "/gone - image", "/new/x file -"]
    );
}

#[test]
fn deleted_is_deleted_once() {
    let after = start().whiteout("bin").without("etc").whiteout("etc");
    assert_eq!(
        differences(&start(), &after),
        [
            "/bin image -",
            "/etc directory+ -",
            "/etc/a file -",
            "/etc/b file -"
        ]
    );
    // Below a deleted directory, what is deleted already makes no difference.
    let before = start().whiteout("etc/c");
    let lines = differences(&before, &after);
    assert!(
        !lines.iter().any(|line| line.contains("/etc/c")),
        "{lines:?}"
    );
}

#[test]
fn a_directory_that_hides_the_image() {
    let after = Tree::new()
        .opaque("etc")
        .file("etc/a", 1)
        .whiteout("gone")
        .opaque("new")
        .file("new/x", 3);
    assert_eq!(
        differences(&start(), &after),
        ["/etc directory+ directory opaque", "/etc/b file -"]
    );
}

#[test]
fn all_names_of_a_changed_file_are_told() {
    let linked = || start().link("etc/c", "etc/a").link("new/z", "etc/a");
    assert_eq!(differences(&linked(), &linked()), NOTHING);
    let after = linked().with_meta("etc/a", |meta| meta.mode = 0o400);
    assert_eq!(
        differences(&linked(), &after),
        [
            "/etc/a file file mode",
            "/etc/c hardlink hardlink mode",
            "/new/z hardlink hardlink mode"
        ]
    );
    let after = linked().without("etc/a");
    assert_eq!(
        differences(&linked(), &after),
        [
            "/etc/a file image",
            "/etc/c hardlink file links",
            "/new/z hardlink hardlink links"
        ]
    );
}

#[test]
fn holes_are_zeros() {
    let sparse = |segments: Vec<(u64, u64)>, size| Body::File {
        seed: 0,
        size,
        segments: Some(segments),
    };
    let hollow = Tree::new().body("f", sparse(vec![], 5000));
    let other = Tree::new().body("f", sparse(vec![], 6000));
    assert_eq!(differences(&hollow, &other), ["/f file file content"]);
    let data = Tree::new().body("f", sparse(vec![(4096, 904)], 5000));
    assert_eq!(differences(&hollow, &data), ["/f file file content"]);
    assert_eq!(differences(&data, &data), NOTHING);
}

#[test]
fn a_world_without_a_rootfs() {
    let tar = start().tar();
    let promised = expected(&tar);
    let lines = compare(&[], &[full(&tar)], [promised, promised]);
    assert_eq!(lines.len(), 7);
    assert_eq!(lines[0], "/ image directory+");
}

#[test]
fn damage_is_told_with_the_worlds_name() {
    let tar = start().tar();
    let whole = full(&tar);
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        let (mut before, mut after) = ([whole.as_slice()], [damaged.as_slice()]);
        let side = |layers, name: &str| Layers {
            layers,
            expected: expected(&tar),
            name: name.to_owned(),
        };
        let compared = changes(
            side(&mut before, "one"),
            side(&mut after, "two"),
            &mut |_| Ok(()),
        );
        if let Err(error) = compared {
            assert!(error.to_string().contains("two"), "{error}");
        }
    }
}
