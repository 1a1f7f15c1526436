//! Archives that are damaged, or made to do harm: one clear error each, and a store
//! as it was.

use std::fs;
use std::path::Path;

use tar::EntryType;

use super::files::{Member, members, write};
use super::forms::{lived, text};
use super::verbs::World;
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("hostile_archives_are_one_error", archives),
        shared("hostile_layouts_are_one_error", layouts),
        shared("truncated_files_are_one_error", truncated),
        shared("what_is_no_world_is_told_so", nothing),
    ]
}

type Change = fn(&mut Vec<Member>);

fn at<'a>(members: &'a mut [Member], path: &str) -> &'a mut Member {
    let found = members.iter_mut().find(|member| member.path.contains(path));
    found.unwrap_or_else(|| panic!("no {path}"))
}

fn without(members: &mut Vec<Member>, path: &str) {
    let before = members.len();
    members.retain(|member| !member.path.contains(path));
    assert!(members.len() < before, "no {path}");
}

fn flip(member: &mut Member) {
    let middle = member.data.len() / 2;
    member.data[middle] ^= 1;
}

/// What is done to a checkpoint archive, and a word of what is said.
const ARCHIVES: [(&str, &str, Change); 21] = [
    ("a lineage that is none", "lineage.json", |m| {
        m.insert(1, Member::file("lineage.json", b"{\"parent\":7}"));
    }),
    ("a path that climbs", "leads out", |m| {
        m.insert(1, Member::file("../evil", b"x"))
    }),
    ("a path that climbs later", "leads out", |m| {
        m.push(Member::file("checkpoint/../../evil", b"x"));
    }),
    ("an absolute path", "leads out", |m| {
        m.insert(1, Member::file("/tmp/evil", b"x"))
    }),
    ("a climbing folder", "leads out", |m| {
        m.insert(1, Member::of(EntryType::Directory, "../evil/", b""));
    }),
    ("a symbolic link", "symbolic link", |m| {
        m.insert(
            1,
            Member::of(EntryType::Symlink, "checkpoint/pages-9.img", b""),
        );
    }),
    ("a link instead of an image", "symbolic link", |m| {
        let image = at(m, "pstree.img");
        *image = Member::of(EntryType::Symlink, "checkpoint/pstree.img", b"");
    }),
    ("a hard link", "hard link", |m| {
        m.insert(1, Member::of(EntryType::Link, "env.json", b""));
    }),
    ("a device", "a device", |m| {
        m.insert(1, Member::of(EntryType::Char, "x", b""))
    }),
    ("a fifo", "a fifo", |m| {
        m.insert(1, Member::of(EntryType::Fifo, "x", b""))
    }),
    ("an image twice", "twice", |m| {
        let image = at(m, "pstree.img").clone();
        m.push(image);
    }),
    ("an image in two places", "does not belong", |m| {
        let mut image = at(m, "pstree.img").clone();
        image.path = "pstree.img".to_owned();
        m.push(image);
    }),
    ("world.json twice", "twice", |m| {
        let manifest = at(m, "world.json").clone();
        m.push(manifest);
    }),
    ("an image that is not listed", "does not belong", |m| {
        m.push(Member::file("checkpoint/pages-9.img", b"x"));
    }),
    ("an image too few", "missing", |m| without(m, "pstree.img")),
    ("no rootfs", "missing", |m| without(m, "rootfs-diff.tar")),
    ("a bit flipped in memory", "damaged", |m| {
        flip(at(m, "pages-1.img"))
    }),
    ("a bit flipped in the rootfs", "damaged", |m| {
        flip(at(m, "rootfs-diff.tar"))
    }),
    ("a bit flipped in world.json", "world.json", |m| {
        flip(at(m, "world.json"))
    }),
    ("an image that is longer", "bytes", |m| {
        at(m, "pages-1.img").data.push(0)
    }),
    ("an enormous world.json", "allowed", |m| {
        at(m, "world.json").data = vec![b' '; (16 << 20) + 1];
    }),
];

fn archives(test: &Test) {
    let world = World::new(test);
    let container = lived(test, "a");
    world.checkpoint(&container.id, "kept");
    let good = test.path("good.tar");
    world.json(&["export", "kept", text(&good), "--compress", "none"]);
    let parts = members(&good);
    for (what, word, change) in ARCHIVES {
        let mut parts = parts.clone();
        change(&mut parts);
        let bad = test.path("bad.tar");
        write(&bad, &parts);
        one_error(&world, &bad, what, word);
    }
    let mut huge = parts.clone();
    at(&mut huge, "pages-1.img").size = Some(1 << 50);
    let bad = test.path("bad.tar");
    write(&bad, &huge);
    one_error(&world, &bad, "a size beyond the file", "bytes");
    // World.json as containerd has it, last, is fine; so is what other tools add.
    let mut parts = parts;
    parts.rotate_left(1);
    parts.insert(0, Member::file("artifacts", b"x"));
    write(&bad, &parts);
    world.json(&["import", text(&bad), "fine"]);
}

/// What is done to an OCI layout.
const LAYOUTS: [(&str, &str, Change); 8] = [
    ("a path that climbs", "leads out", |m| {
        m.push(Member::file("blobs/../../evil", b"x"))
    }),
    ("a link", "symbolic link", |m| {
        m.push(Member::of(EntryType::Symlink, "blobs/sha256/x", b""));
    }),
    ("no index", "index.json", |m| without(m, "index.json")),
    ("an index that is none", "index.json", |m| {
        at(m, "index.json").data = b"[]".to_vec()
    }),
    ("an enormous index", "allowed", |m| {
        at(m, "index.json").data = vec![b' '; (4 << 20) + 1];
    }),
    ("no oci-layout", "no world", |m| without(m, "oci-layout")),
    ("a member twice", "twice", |m| {
        let index = at(m, "index.json").clone();
        m.push(index);
    }),
    ("digests of nothing", "digest", |m| {
        let index = at(m, "index.json");
        let text = String::from_utf8_lossy(&index.data).replace("sha256:", "sha256:../");
        index.data = text.into_bytes();
    }),
];

fn layouts(test: &Test) {
    let world = World::new(test);
    let container = lived(test, "a");
    world.checkpoint(&container.id, "kept");
    let good = test.path("good.tar");
    world.json(&["export", "kept", text(&good), "--as", "oci"]);
    let parts = members(&good);
    let fresh = World {
        store: test.path("fresh"),
    };
    let bad = test.path("bad.tar");
    for (what, word, change) in LAYOUTS {
        let mut parts = parts.clone();
        change(&mut parts);
        write(&bad, &parts);
        one_error(&fresh, &bad, what, word);
    }
    for number in 0..parts.len() {
        if parts[number].kind != EntryType::Regular || !parts[number].path.starts_with("blobs/") {
            continue;
        }
        let path = parts[number].path.clone();
        let mut damaged = parts.clone();
        flip(&mut damaged[number]);
        write(&bad, &damaged);
        one_error(&fresh, &bad, &format!("a bit flipped in {path}"), "");
        let mut missing = parts.clone();
        missing.remove(number);
        write(&bad, &missing);
        one_error(&fresh, &bad, &format!("without {path}"), "missing");
    }
}

fn truncated(test: &Test) {
    let world = World::new(test);
    let container = lived(test, "a");
    world.checkpoint(&container.id, "kept");
    let fresh = World {
        store: test.path("fresh"),
    };
    let forms: [(&str, &[&str]); 4] = [
        ("plain", &["--compress", "none"]),
        ("gzip", &["--compress", "gzip"]),
        ("zstd", &["--compress", "zstd"]),
        ("oci", &["--as", "oci"]),
    ];
    for (form, options) in forms {
        let good = test.path(form);
        let mut words = vec!["export", "kept", text(&good)];
        words.extend(options);
        world.json(&words);
        let bytes = fs::read(&good).expect("read");
        let bad = test.path("bad");
        for part in [
            1,
            100,
            512,
            1000,
            bytes.len() / 3,
            bytes.len() / 2,
            bytes.len() - 1200,
        ] {
            fs::write(&bad, &bytes[..part]).expect("write");
            one_error(&fresh, &bad, &format!("{form} cut at {part}"), "");
        }
    }
}

fn nothing(test: &Test) {
    let world = World::new(test);
    let file = test.path("file");
    for (status, bytes) in [
        (6, &b""[..]),
        (6, b"hello"),
        (6, &[7; 5000]),
        (7, &[0; 10240]),
        (6, &[0x28, 0xb5, 0x2f, 0xfd, 1, 2, 3]),
        (6, &[0x1f, 0x8b, 8, 0, 0]),
    ] {
        fs::write(&file, bytes).expect("write");
        world.refused(status, &["import", text(&file)]);
    }
    write(&file, &[Member::file("readme", b"hello")]);
    let said = world.refused(7, &["import", text(&file)]);
    assert!(said.contains("no world"), "{said}");
    let runc = ["inventory.img", "descriptors.json", "pstree.img"];
    write(&file, &runc.map(|name| Member::file(name, b"x")));
    let said = world.refused(7, &["import", text(&file)]);
    assert!(said.contains("runc"), "{said}");
    let folder = test.path("folder");
    fs::create_dir(&folder).expect("a folder");
    world.refused(6, &["import", text(&folder)]);
    for name in runc {
        fs::write(folder.join(name), "x").expect("write");
    }
    let said = world.refused(7, &["import", text(&folder)]);
    assert!(said.contains("another runtime"), "{said}");
    assert_eq!(world.json(&["ls"]), serde_json::json!([]));
    world.sound();
}

/// Damage is told in one line, and nothing of it is in the store or beside it.
#[track_caller]
fn one_error(world: &World, file: &Path, what: &str, word: &str) {
    let before = world_state(world);
    let output = world.run(&["import", text(file), "bad"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let status = output.status.code();
    assert!(
        status == Some(6) || (status == Some(7) && word == "no world"),
        "{what}: {status:?}: {said}"
    );
    assert_eq!(said.lines().count(), 1, "{what}: {said}");
    assert!(said.contains(word), "{what}: {said}");
    assert!(!said.contains("panicked"), "{what}: {said}");
    assert_eq!(world_state(world), before, "{what}");
    assert!(!Path::new("/tmp/evil").exists(), "{what}");
    let work = world.store.join(".worldshim/work");
    let left = fs::read_dir(work).map(Iterator::count).unwrap_or(0);
    assert_eq!(left, 0, "{what}: something is left");
    world.sound();
}

fn world_state(world: &World) -> serde_json::Value {
    match world.store.exists() {
        true => world.json(&["ls"]),
        false => serde_json::json!([]),
    }
}
