//! What lazy memory costs. With a release build on PATH:
//! `tests/lab/run --bare TEST-BINARY --ignored --nocapture --test-threads 1`.

use std::fs;
use std::time::Instant;

use super::container::{Container, read_until};
use super::rig::World;

/// Walks through all of its memory, in one order or another, and says how long each touch took.
const WALKS: &str = "
import gc, random
MIB = int(SIZE)
pages = MIB * 256
block = os.urandom(PAGE * 64)
at = anonymous(pages)
for i in range(0, pages, 64):
    ctypes.memmove(at + i * PAGE, block, PAGE * 64)
    for j in range(64):
        ctypes.memmove(at + (i + j) * PAGE, struct.pack('<Q', i + j), 8)
sample = list(range(0, pages, 50)); random.Random(1).shuffle(sample)
gc.freeze(); gc.disable()
wait_for_go()
print('first', flush=True)
def walk(order):
    times, clock, peek = [], time.perf_counter_ns, ctypes.c_ulong.from_address
    began = clock()
    for i in order:
        t = clock(); value = peek(at + i * PAGE).value; t = clock() - t
        if value != i: wrong('walk', at, i, b'')
        times.append(t)
    total = clock() - began
    times.sort()
    slow = [t for t in times if t > 4000]
    at_ = lambda share, of: of[min(len(of) - 1, int(len(of) * share))] / 1e3 if of else 0
    print(f'{total / 1e6:.0f} ms, {len(slow)} faults, median {at_(.5, slow):.0f} us, p99 {at_(.99, slow):.0f}, '
          f'p99.9 {at_(.999, slow):.0f}, max {times[-1] / 1e3:.0f} us', flush=True)
while True:
    for name, order in (('scattered', sample), ('walk', range(pages))):
        if os.path.exists('/' + name):
            os.unlink('/' + name); walk(order)
    time.sleep(0.002)
";

fn resident(container: &Container) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", container.pid)).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon"));
    let kib = line
        .and_then(|line| line.split_whitespace().nth(1))
        .unwrap();
    kib.parse::<f64>().unwrap() / 1024.0
}

fn walk(container: &Container, output: &std::os::fd::OwnedFd, name: &str) -> String {
    fs::write(container.place.rootfs().join(name), "").unwrap();
    read_until(output, "\n").trim().to_owned()
}

#[test]
#[ignore = "a measurement"]
fn lazily_and_eagerly() {
    for mib in [16, 256, 1024] {
        let world = World::new(&WALKS.replace("SIZE", &mib.to_string()));
        let began = Instant::now();
        let lazy = world.stage(true);
        println!("{mib} MiB: stage {:?}", began.elapsed());
        let began = Instant::now();
        let server = world.serve();
        println!("server is ready after {:?}", began.elapsed());
        for name in ["1st", "2nd", "3rd", "4th"] {
            let began = Instant::now();
            let sibling = world.fork(&server, &lazy, name);
            read_until(&sibling.output, "first\n");
            let first = began.elapsed();
            std::thread::sleep(std::time::Duration::from_millis(300));
            let rss = resident(&sibling.container);
            println!(
                "{name}: restored {:?}, first output {first:?}, {rss:.1} MiB",
                sibling.took
            );
            if name == "2nd" {
                println!(
                    "  2 %: {}",
                    walk(&sibling.container, &sibling.output, "scattered")
                );
                println!("  {:.1} MiB", resident(&sibling.container));
            }
            if name == "3rd" {
                println!(
                    "  walk: {}",
                    walk(&sibling.container, &sibling.output, "walk")
                );
                println!("  {:.1} MiB", resident(&sibling.container));
            }
            std::thread::sleep(std::time::Duration::from_millis(1700));
        }
        server.ends();
        drop(lazy);
        let began = Instant::now();
        let eager = world.stage(false);
        println!("eager stage {:?}", began.elapsed());
        let began = Instant::now();
        let (container, output, took) = world.fork_eagerly(&eager);
        read_until(&output, "first\n");
        println!(
            "eager: restored {took:?}, first output {:?}",
            began.elapsed()
        );
        println!("  walk: {}", walk(&container, &output, "walk"));
    }
}
