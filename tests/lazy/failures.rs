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
