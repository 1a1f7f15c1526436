//! Programs that do one thing to their memory, and check every byte of it.

use worldshim::lazy::line;

use super::rig::World;

/// Forks `program` three times at once; all must find everything as it should be, also the one
/// that is being filled with all it lacks meanwhile.
fn check(program: &str) {
    let world = World::new(program);
    let server = world.serve();
    let stage = world.stage(true);
    let siblings = ["detached", "one", "two"].map(|name| {
        let sibling = world.fork(&server, &stage, name);
        if name == "detached" {
            // It may be through already.
            let _ = line::detach(&server.socket, name);
        }
        sibling
    });
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

#[test]
fn gives_pages_up_and_finds_zeros() {
    check(
        "
at = filled(4000)
wait_for_go()
advise(at + 100 * PAGE, 1000, DONTNEED)
zeros(at + 100 * PAGE, 1000)
same(at + 1100 * PAGE, 100, 1100)
advise(at + 1050 * PAGE, 100, DONTNEED)
zeros(at + 1050 * PAGE, 100)
advise(at + 3000 * PAGE, 500, DONTNEED)
fill(at + 3000 * PAGE, 500, 77)
same(at + 3000 * PAGE, 500, 77)
same(at, 100); same(at + 1150 * PAGE, 1850, 1150); same(at + 3500 * PAGE, 500, 3500)
done()
",
    );
}

#[test]
fn unmaps_and_maps_again() {
    check(
        "
at = filled(4000)
wait_for_go()
unmap(at + 1000 * PAGE, 1000)
assert anonymous(1000, at + 1000 * PAGE) == at + 1000 * PAGE
zeros(at + 1000 * PAGE, 1000)
fill(at + 1500 * PAGE, 500, 5)
same(at, 1000); same(at + 2000 * PAGE, 2000, 2000); same(at + 1500 * PAGE, 500, 5)
unmap(at, 4000)
assert anonymous(4000, at) == at
zeros(at, 4000)
done()
",
    );
}

#[test]
fn moves_its_memory() {
    check(
        "
at = filled(4000)
target = anonymous(6000)
fill(target, 6000, 50000)
wait_for_go()
same(at, 10)
# Onto memory that lacks pages itself.
move(at + 1000 * PAGE, 1000, target + 2000 * PAGE)
same(target + 2000 * PAGE, 1000, 1000)
same(target, 2000, 50000); same(target + 3000 * PAGE, 3000, 53000)
assert anonymous(1000, at + 1000 * PAGE) == at + 1000 * PAGE
zeros(at + 1000 * PAGE, 1000)
# Away and back, before it was touched.
place = anonymous(500)
move(at + 2000 * PAGE, 500, place)
move(place, 500, at + 2000 * PAGE)
same(at + 2000 * PAGE, 500, 2000)
# Grown while moved: what is new is zero.
place = move(at + 2500 * PAGE, 500, anonymous(1000), 1000)
same(place, 500, 2500); zeros(place + 500 * PAGE, 500)
# Shrunk in its place.
must(libc.mremap(at + 3000 * PAGE, 1000 * PAGE, 400 * PAGE, 0, None))
assert anonymous(600, at + 3400 * PAGE) == at + 3400 * PAGE
same(at + 3000 * PAGE, 400, 3000); zeros(at + 3400 * PAGE, 600)
same(at, 1000)
done()
",
    );
}

#[test]
fn leaves_memory_behind_when_it_moves() {
    check(
        "
at = filled(1000)
wait_for_go()
target = anonymous(1000)
must(libc.mremap(at, 1000 * PAGE, 1000 * PAGE, 7, target)) # MREMAP_DONTUNMAP
zeros(at, 1000)
same(target, 1000)
done()
",
    );
}

#[test]
fn changes_what_it_may_do() {
    check(
        "
at = filled(3000)
wait_for_go()
for i in range(0, 3000, 300): must(libc.mprotect(at + i * PAGE, 100 * PAGE, 1))
must(libc.mprotect(at + 50 * PAGE, 10 * PAGE, 0))
must(libc.mprotect(at + 50 * PAGE, 10 * PAGE, 3))
same(at, 3000)
done()
",
    );
}

#[test]
fn forks_before_it_touched_anything() {
    check(
        "
at = filled(3000)
wait_for_go()
def grandchild():
    same(at, 3000, what='grandchild')
def work():
    pid = child(grandchild)
    same(at, 3000, what='child', order=range(2999, -1, -1))
    advise(at, 1000, DONTNEED); zeros(at, 1000, 'child')
    join(pid)
pids = [child(work) for _ in range(3)]
same(at, 3000, what='parent')
fill(at, 3000, 9)
join(*pids)
same(at, 3000, 9, what='parent afterwards')
done()
",
    );
}

#[test]
fn forks_between_its_changes() {
    check(
        "
at = filled(3000)
wait_for_go()
first = child(lambda: same(at, 3000, what='first'))
advise(at, 1000, DONTNEED)
def second():
    zeros(at, 1000, 'second'); same(at + 1000 * PAGE, 2000, 1000, what='second')
second_pid = child(second)
place = anonymous(1000)
move(at + 1000 * PAGE, 1000, place)
def third():
    zeros(at, 1000, 'third'); same(place, 1000, 1000, what='third')
    same(at + 2000 * PAGE, 1000, 2000, what='third')
third_pid = child(third)
unmap(at, 1000)
same(place, 1000, 1000); same(at + 2000 * PAGE, 1000, 2000)
join(first, second_pid, third_pid)
done()
",
    );
}

#[test]
fn its_children_see_only_what_they_may() {
    check(
        "
at = filled(1000)
kept = filled(1000, 1000)
wait_for_go()
advise(at, 1000, DONTFORK)
def work():
    same(kept, 1000, 1000, what='child')
    assert anonymous(1000, at) == at
    zeros(at, 1000, 'child')
pid = child(work)
same(at, 1000); same(kept, 1000, 1000)
join(pid)
done()
",
    );
}

#[test]
fn threads_touch_everything_at_once() {
    check(
        "
import random
at = filled(4000)
def work(seed):
    order = list(range(4000)); random.Random(seed).shuffle(order)
    same(at, 4000, what=f'thread {seed}', order=order)
wait_for_go()
threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
done()
",
    );
}

#[test]
fn threads_change_memory_beside_each_other() {
    check("
blocks = [filled(200, i * 1000) for i in range(24)]
wait_for_go()
def moves(mine):
    for n, i in mine:
        if n % 3 == 0:
            to = anonymous(200); move(blocks[i], 200, to); same(to, 200, i * 1000, f'moved {i}')
        elif n % 3 == 1:
            advise(blocks[i] + 50 * PAGE, 100, DONTNEED); zeros(blocks[i] + 50 * PAGE, 100, f'given up {i}')
            same(blocks[i], 50, i * 1000)
        else:
            pid = child(lambda: same(blocks[i], 200, i * 1000, f'child {i}'))
            same(blocks[i], 200, i * 1000, f'parent {i}'); join(pid)
jobs = list(enumerate(range(24)))
threads = [threading.Thread(target=moves, args=(jobs[t::4],)) for t in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
done()
");
}

#[test]
fn allocates_frees_and_forks_all_the_time() {
    check(
        "
import random
blocks = {i: (filled(64, i * 64), i * 64) for i in range(64)}
wait_for_go()
rng, pids = random.Random(os.getpid()), []
for turn in range(600):
    key = rng.choice(list(blocks)); at, first = blocks[key]
    what = rng.randrange(5)
    if what == 0:
        unmap(at, 64); blocks[key] = (filled(64, turn), turn)
    elif what == 1:
        same(at, 64, first)
    elif what == 2:
        to = anonymous(64); move(at, 64, to); blocks[key] = (to, first)
    elif what == 3:
        advise(at, 64, DONTNEED); zeros(at, 64); fill(at, 64, turn); blocks[key] = (at, turn)
    else:
        def work():
            for k in rng.sample(list(blocks), 8): same(blocks[k][0], 64, blocks[k][1], 'child')
        pids.append(child(work))
        if len(pids) > 4: join(pids.pop(0))
join(*pids)
for at, first in blocks.values(): same(at, 64, first)
done()
",
    );
}

#[test]
fn executes_another_program() {
    check(
        "
import subprocess
at = filled(2000)
wait_for_go()
for _ in range(5):
    assert subprocess.run(['/bin/echo', 'hello'], capture_output=True).stdout == b'hello\\n'
    assert os.system('/bin/true') == 0
same(at, 2000)
done()
",
    );
}

#[test]
fn a_tree_of_processes_comes_back() {
    check(
        "
at = filled(1500)
go = threading.Event()
def work():
    own = filled(500, 7000)
    grandchild = child(lambda: (wait(), same(at, 1500, what='grandchild'), same(own, 500, 7000)))
    wait(); same(at, 1500, what='child'); same(own, 500, 7000); join(grandchild)
def wait():
    while not os.path.exists('/go'): time.sleep(0.005)
pids = [child(work) for _ in range(3)]
time.sleep(1)
fill(at, 500, 900)
wait_for_go()
same(at, 500, 900); same(at + 500 * PAGE, 1000, 500)
join(*pids)
done()
",
    );
}

#[test]
fn what_no_child_is_to_see_is_zero() {
    check(
        "
at = filled(100)
kept = filled(100, 100)
advise(at, 100, WIPEONFORK)
wait_for_go()
zeros(at, 100); same(kept, 100, 100)
fill(at, 50, 3)
join(child(lambda: (zeros(at, 100, 'child'), same(kept, 100, 100))))
same(at, 50, 3)
done()
",
    );
}

#[test]
fn zeros_take_no_memory() {
    check(
        "
at = anonymous(20000)
for i in range(20000): ctypes.memset(at + i * PAGE, 0, 1)
wait_for_go()
def resident():
    return int([l for l in open('/proc/self/status') if l.startswith('RssAnon')][0].split()[1])
before = resident()
zeros(at, 20000)
grown = resident() - before
if grown > 4000: print('WRONG: grown by', grown, 'KiB', flush=True)
done()
",
    );
}
