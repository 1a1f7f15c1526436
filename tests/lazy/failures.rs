//! What goes wrong ends in an error on the line, never in zeros.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::time::Duration;

use worldshim::lazy::{News, line};

use super::container::{eventually, read_until};
use super::rig::World;

/// Reads everything, but only when it is told to by a file.
const WAITS: &str = "
at = filled(4000)
wait_for_go()
print('waiting', flush=True)
while not os.path.exists('/read'): time.sleep(0.005)
same(at, 4000)
done()
";

#[test]
fn a_killed_server_leaves_tasks_hanging_and_no_zeros() {
    let world = World::new(WAITS);
    let mut server = world.serve();
    let stage = world.stage(true);
    let sibling = world.fork(&server, &stage, "one");
    read_until(&sibling.output, "waiting\n");
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    assert_eq!(sibling.line.hears(), News::Closed);
    fs::write(sibling.container.place.rootfs().join("read"), "").unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let mut ready = [rustix::event::PollFd::new(
        &sibling.output,
        rustix::event::PollFlags::IN,
    )];
    let soon = rustix::time::Timespec::default();
    assert_eq!(rustix::event::poll(&mut ready, Some(&soon)).unwrap(), 0);
    assert!(sibling.container.is_alive());
    drop(sibling);
}

#[test]
fn a_damaged_pack_is_an_error_on_the_line() {
    let world = World::new(WAITS);
    let server = world.serve();
    let stage = world.stage(true);
    let sibling = world.fork(&server, &stage, "one");
    read_until(&sibling.output, "waiting\n");
    damage_packs(&world);
    fs::write(sibling.container.place.rootfs().join("read"), "").unwrap();
    let News::Failed(reason) = sibling.line.hears() else {
        panic!("it did not fail");
    };
    assert!(reason.contains("pack sha256:"), "{reason}");
    std::thread::sleep(Duration::from_millis(500));
    assert!(sibling.container.is_alive());
    drop(sibling);
    server.ends();
}

/// Changes some bytes of all pages in packs.
fn damage_packs(world: &World) {
    let blobs = world.store.path().join("blobs/sha256");
    for entry in fs::read_dir(blobs).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        if !bytes.starts_with(b"wspack1\n") {
            continue;
        }
        let mut file = fs::File::options().write(true).open(&path).unwrap();
        for at in (8..bytes.len() as u64 / 4 * 3).step_by(1024) {
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(b"damaged!").unwrap();
        }
    }
}

#[test]
fn a_sibling_lives_on_without_its_server_when_it_is_detached() {
    let world = World::new(WAITS);
    let mut server = world.serve();
    let stage = world.stage(true);
    let sibling = world.fork(&server, &stage, "one");
    let other = world.fork(&server, &stage, "other");
    read_until(&sibling.output, "waiting\n");
    assert!(server.state().missing_pages > 4000);
    assert!(line::detach(&server.socket, "nobody").is_err());
    line::detach(&server.socket, "one").unwrap();
    assert_eq!(sibling.line.hears(), News::Independent);
    assert_eq!(other.line.has_heard(), None);
    eventually("one sibling", || {
        (server.state().siblings == 1).then_some(())
    });
    drop(other);
    server.child.kill().unwrap();
    fs::write(sibling.container.place.rootfs().join("read"), "").unwrap();
    sibling.is_all_right();
}

#[test]
fn a_name_is_given_once() {
    let world = World::new(WAITS);
    let server = world.serve();
    let stage = world.stage(true);
    let sibling = world.fork(&server, &stage, "one");
    assert!(world.try_fork(&server, &stage, "one").is_err());
    fs::write(sibling.container.place.rootfs().join("read"), "").unwrap();
    sibling.is_all_right();
}

#[test]
fn a_server_is_started_once_and_ends_by_itself() {
    use worldshim::lazy::daemon;
    let world = World::new(WAITS);
    let stage = world.stage(true);
    let program = which::which("world").unwrap();
    let sockets: Vec<_> = std::thread::scope(|scope| {
        let start = || daemon::ensure(&program, world.store.path(), &world.digest).unwrap();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|it| it.join().unwrap()).collect()
    });
    assert!(sockets.iter().all(|socket| *socket == sockets[0]));
    let sibling = world.fork_at(&sockets[0], &stage, "one");
    fs::write(sibling.container.place.rootfs().join("read"), "").unwrap();
    sibling.is_all_right();
    drop(sibling);
    eventually_within(30, "the server's end", || !sockets[0].exists());
    let left = fs::read_dir(daemon::FOLDER).unwrap().count();
    assert_eq!(left, 0, "files are left in {}", daemon::FOLDER);
}

fn eventually_within(seconds: u64, what: &str, probe: impl Fn() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(seconds);
    while !probe() {
        assert!(std::time::Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_siblings_want_first_is_remembered() {
    let world = World::new(WAITS);
    let server = world.serve();
    let stage = world.stage(true);
    let path = world.store.working_set(&world.digest).unwrap();
    let first = world.fork(&server, &stage, "one");
    read_until(&first.output, "waiting\n");
    eventually_within(10, "a working set", || path.exists());
    let faults = server.state().faults;
    let second = world.fork(&server, &stage, "two");
    read_until(&second.output, "waiting\n");
    let again = server.state().faults - faults;
    assert!(again * 2 < faults, "{faults} faults, then {again}");
    // Damage is as none.
    fs::write(&path, "wsset1\n1 2 3\nnonsense\n").unwrap();
    let other = world.serve();
    let third = world.fork(&other, &stage, "three");
    fs::write(third.container.place.rootfs().join("read"), "").unwrap();
    third.is_all_right();
}
