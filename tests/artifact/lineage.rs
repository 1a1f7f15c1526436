//! Worlds that follow one another: what each costs, and what each says.

use serde_json::Value;

use super::verbs::World;
use crate::common::container::Container;
use crate::common::ctr::{PYTHON, within};
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("a_second_world_costs_what_changed", second),
        shared("strangers_share_no_pages_unless_told_to", strangers),
        shared("names_move_and_worlds_stay", names),
        shared("the_same_directory_is_the_same_world", same),
    ]
}

fn layers(inspected: &Value, kind: &str) -> Vec<String> {
    let blobs = inspected["blobs"].as_array().expect("blobs");
    let of_kind = blobs
        .iter()
        .filter(|blob| blob["mediaType"].as_str().is_some_and(|t| t.contains(kind)));
    of_kind
        .map(|blob| blob["digest"].as_str().expect("a digest").to_owned())
        .collect()
}

fn second(test: &Test) {
    let world = World::new(test);
    let program = "import os, time; held = os.urandom(48 << 20); open('/up', 'w'); time.sleep(1e6)";
    let container = Container::run(test, "a", &[], PYTHON, &["python3", "-c", program]);
    within(60, "a big process", || container.path("/up").exists());
    container.exec(&[
        "sh",
        "-c",
        "mkdir /d; for i in $(seq 300); do head -c 20000 /dev/urandom >/d/$i; done",
    ]);
    let first = world.json(&["checkpoint", &container.id, "x:1"]);
    assert!(first["new_bytes"].as_u64() > Some(48 << 20));
    container.exec(&["sh", "-c", "echo more >>/d/7; rm /d/8"]);
    let second = world.json(&["checkpoint", &container.id, "x:2"]);
    let (all, new) = (first["new_bytes"].as_u64(), second["new_bytes"].as_u64());
    assert!(new < all.map(|all| all / 50), "{new:?} of {all:?}");
    assert_eq!(second["parent"], first["digest"]);
    let (a, b) = (
        world.json(&["inspect", "x:1"]),
        world.json(&["inspect", "x:2"]),
    );
    let (a, b) = (layers(&a, "image.layer"), layers(&b, "image.layer"));
    assert_eq!(a.len(), 1);
    assert_eq!(b.len(), 2, "a delta on the first");
    assert_eq!(a[0], b[0]);
    // Each comes back as it was.
    for (name, world_name, has) in [("b", "x:1", true), ("c", "x:2", false)] {
        let id = test.id(name);
        world.json(&["restore", world_name, "--id", &id]);
        let clone = Container { id };
        assert_eq!(clone.path("/d/8").exists(), has);
        let size = std::fs::metadata(clone.path("/d/7")).expect("a file").len();
        assert_eq!(size, if has { 20000 } else { 20005 });
        assert_eq!(clone.status(), "RUNNING");
        clone.remove();
    }
    // The second needs all it stands on without the first.
    world.json(&["rm", "x:1"]);
    let swept = world.json(&["gc"]);
    assert!(swept["blobs"].as_u64() > Some(0));
    world.json(&["verify", "x:2"]);
    world.sound();
}

fn strangers(test: &Test) {
    let world = World::new(test);
    let program = "import time; held = b''.join(i.to_bytes(8, 'little') * 512 for i in range(4096)); open('/up', 'w'); time.sleep(1e6)";
    let run = |name| {
        let one = Container::run(test, name, &[], PYTHON, &["python3", "-c", program]);
        within(60, "a big process", || one.path("/up").exists());
        one
    };
    let (one, other) = (run("a"), run("b"));
    let first = world.json(&["checkpoint", &one.id, "one"]);
    let alone = world.json(&["checkpoint", &other.id, "alone"]);
    assert_eq!(alone["parent"], Value::Null);
    let packs = |name| layers(&world.json(&["inspect", name]), "world.pack");
    // What it is sent with is its own memory.
    assert!(
        packs("alone")
            .iter()
            .all(|pack| !packs("one").contains(pack))
    );
    // In a store that has only the first one's pages.
    let world = World {
        store: test.path("second-store"),
    };
    world.json(&["checkpoint", &one.id, "one"]);
    let packs = |name| layers(&world.json(&["inspect", name]), "world.pack");
    let shared = world.json(&["checkpoint", &other.id, "shared", "--share-all"]);
    assert!(
        packs("shared")
            .iter()
            .any(|pack| packs("one").contains(pack))
    );
    let (all, new) = (first["new_bytes"].as_u64(), shared["new_bytes"].as_u64());
    println!("two of one image: {all:?}, then {new:?} bytes");
    assert!(new < all);
}

fn names(test: &Test) {
    let world = World::new(test);
    let container = Container::counter(test, "a", &[]);
    let first = world.checkpoint(&container.id, "x");
    let report = world.json(&["checkpoint", &container.id, "x"]);
    assert_eq!(report["displaced"], first.as_str());
    let listed = world.json(&["ls"]);
    let lines = listed.as_array().expect("lines");
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["names"], serde_json::json!([]));
    assert_eq!(lines[1]["names"], serde_json::json!(["x:latest"]));
    assert_eq!(lines[1]["parent"], first.as_str());
    // By the beginning of its digest it is still there.
    world.json(&["tag", &first[7..20], "old"]);
    world.json(&["verify", "old"]);
    world.json(&["gc", "--untagged"]);
    assert_eq!(world.json(&["ls"]).as_array().map(Vec::len), Some(2));
    world.json(&["rm", "old", "x"]);
    assert_eq!(world.json(&["ls"]).as_array().map(Vec::len), Some(0));
    let said = world.refused(3, &["inspect", "x"]);
    assert!(said.contains("x:latest"), "{said}");
    world.json(&["gc"]);
    assert_eq!(
        world.json(&["gc"])["kept_blobs"].as_u64().or(Some(0)),
        Some(0)
    );
}

fn same(test: &Test) {
    use worldshim::store::Store;
    use worldshim::world::artifact::{PackRequest, pack, unpack};
    let container = Container::counter(test, "a", &[]);
    let directory = container.checkpoint_to(test, "world");
    let packed = |store: &str| {
        let store = Store::open(&test.path(store)).expect("a store");
        let lease = store.lease().expect("a lease");
        let request = PackRequest {
            world: &directory,
            lease: &lease,
            parent: None,
            share_all: false,
            base: None,
            name: None,
            progress: &|_| {},
        };
        let packed = pack(&request).expect("pack");
        let again = pack(&request).expect("pack again");
        assert_eq!(packed.published.digest, again.published.digest);
        assert_eq!(again.new_bytes, 0);
        let out = store.path().with_extension("out");
        unpack(&lease, &packed.published.digest, &out, &|_| {}).expect("unpack");
        for entry in std::fs::read_dir(&directory).expect("the world") {
            let name = entry.expect("a file").file_name();
            let read = |folder: &std::path::Path| std::fs::read(folder.join(&name)).ok();
            assert_eq!(read(&directory), read(&out), "{name:?}");
        }
        packed.published.digest
    };
    assert_eq!(packed("one"), packed("two"));
}
