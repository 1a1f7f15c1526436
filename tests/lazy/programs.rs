//! Programs that do one thing to their memory, and check every byte of it.

use super::rig::World;

/// Forks `program` twice at once; both must find everything as it should be.
fn check(program: &str) {
    let world = World::new(program);
    let server = world.serve();
    let stage = world.stage(true);
    let siblings = [
        world.fork(&server, &stage, "one"),
        world.fork(&server, &stage, "two"),
    ];
    for sibling in &siblings {
        sibling.is_all_right();
    }
    drop(siblings);
    server.ends();
}

#[test]
fn reads_everything() {
    check(
        "
at = filled(8000)
wait_for_go()
same(at, 8000)
done()
",
    );
}

#[test]
fn reads_everything_scattered() {
    check(
        "
import random
at = filled(4000)
order = list(range(4000)); random.Random(1).shuffle(order)
wait_for_go()
same(at, 4000, order=order)
done()
",
    );
}
