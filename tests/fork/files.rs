//! One layer of files under all siblings.

use super::siblings::Fork;
use super::verbs::World;
use crate::common::container::Container;
use crate::common::ctr::{self, PYTHON, within};
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("the_files_are_made_once_for_all", once),
        shared("readers_see_what_writers_write", held),
        shared("the_root_itself_is_as_it_was", root),
    ]
}

fn snapshots_of(fork: &Fork) -> usize {
    let name = fork.report["files"]["snapshot"].as_str().expect("a name");
    let listed = ctr::ok(&["snapshots", "ls"]);
    let is_it = |line: &&str| line.split_whitespace().next() == Some(name);
    listed.lines().filter(is_it).count()
}

fn once(test: &Test) {
    let world = World::new(test);
    let source = Container::counter(test, "a", &[]);
    source.exec(&[
        "sh",
        "-c",
        "mkdir /d; head -c 3000000 /dev/urandom >/d/big; rm /etc/group",
    ]);
    world.checkpoint(&source.id, "x");
    // Several at once make it once.
    let forks: Vec<Fork> = std::thread::scope(|scope| {
        let world = &world;
        let fork = |name: &'static str| {
            scope.spawn(move || Fork::of(test, world, "x", name, &["-n", "2"]))
        };
        let started: Vec<_> = ["s", "t", "u"].map(fork).into();
        started
            .into_iter()
            .map(|one| one.join().expect("a fork"))
            .collect()
    });
    let names: Vec<_> = forks
        .iter()
        .map(|fork| &fork.report["files"]["snapshot"])
        .collect();
    assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
    assert_eq!(snapshots_of(&forks[0]), 1);
    let sum = source.exec(&["md5sum", "/d/big"]);
    for sibling in forks.iter().flat_map(|fork| &fork.siblings) {
        assert_eq!(sibling.exec(&["md5sum", "/d/big"]), sum);
        assert!(!sibling.path("/etc/group").exists());
    }
    // What stands on it keeps it; what nothing stands on goes.
    world.json(&["gc"]);
    assert_eq!(snapshots_of(&forks[0]), 1);
    let id = forks[0].report["fork"].as_str().expect("an id").to_owned();
    let removed = world.json(&["rm", "--forks-of", &id]);
    assert_eq!(removed["snapshots"], serde_json::json!([]));
    assert_eq!(snapshots_of(&forks[0]), 1);
    world.json(&["rm", "--forks-of", "x"]);
    assert_eq!(snapshots_of(&forks[0]), 0);
    let fork = Fork::of(test, &world, "x", "v", &[]);
    assert_eq!(fork.report["files"]["made"], true);
}

/// A reader with its file open, a writer that opens it every time, another that holds it open.
const PAIR: &str = "
import os, time
open('/slow', 'w').write('0'); open('/fast', 'w').write('0')
reader, held = open('/slow'), open('/fast', 'r+')
other = open('/fast')
import mmap
shared = open('/map', 'w+'); shared.write('0' * 4096); shared.flush()
view = mmap.mmap(os.open('/map', os.O_RDONLY), 4096, prot=mmap.PROT_READ)
n = 0
while True:
    n += 1
    with open('/slow', 'r+') as slow: slow.write('%08d' % n)
    held.seek(0); held.write('%08d' % n); held.flush()
    shared.seek(0); shared.write('%08d' % n); shared.flush()
    reader.seek(0); other.seek(0)
    seen = reader.read(8), other.read(8), view[:8].decode()
    if set(seen) != {'%08d' % n}: open('/differs', 'w').write('%d %r' % (n, seen))
    open('/count.new', 'w').write(str(n)); os.rename('/count.new', '/count')
    time.sleep(0.02)
";

fn held(test: &Test) {
    let world = World::new(test);
    let source = Container::run(test, "a", &[], PYTHON, &["python3", "-c", PAIR]);
    source.counts_past(10);
    assert!(!source.path("/differs").exists());
    world.checkpoint(&source.id, "x");
    let fork = Fork::of(test, &world, "x", "s", &["-n", "2"]);
    for sibling in &fork.siblings {
        sibling.counts_past(sibling.count() + 10);
        let differs = sibling.path("/differs");
        assert!(!differs.exists(), "{}", sibling.read("/differs"));
    }
}

fn root(test: &Test) {
    let world = World::new(test);
    let source = Container::counter(test, "a", &[]);
    source.exec(&["chmod", "1751", "/"]);
    source.exec(&["chown", "7:8", "/"]);
    world.checkpoint(&source.id, "x");
    let fork = Fork::of(test, &world, "x", "s", &[]);
    let said = fork.siblings[0].exec(&["stat", "-c", "%a %u %g", "/"]);
    assert_eq!(said, "1751 7 8");
    within(5, "counting", || fork.siblings[0].count() > 0);
}
