//! What a dump cannot take is named, and the container goes on.

use std::os::unix::net::UnixListener;

use crate::common::container::Container;
use crate::common::ctr::PYTHON;
use crate::common::rpc::Containerd;
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("obstacle_unix_socket_to_the_outside", outside_socket),
        shared("obstacle_sockets_of_other_families", socket_families),
        shared("obstacle_io_uring", io_uring),
        shared("obstacle_traced_process", traced),
        shared("obstacle_deleted_file_with_another_name", deleted_name),
        shared("obstacle_eventfd_as_a_semaphore", semaphore),
        shared("obstacle_inotify_on_an_overlay", watch_on_overlay),
        shared("obstacle_data_before_accept", data_before_accept),
        shared("obstacle_stopped_process", stopped),
        shared("obstacle_namespaces_made_inside", namespaces),
    ]
}

/// Counts like the shell's counter.
const COUNT: &str = "
n, longest, last = 0, 0, time.monotonic()
while True:
    n += 1
    now = time.monotonic()
    longest, last = max(longest, int((now - last) * 100)), now
    open('/count.new', 'w').write('%d %d' % (n, longest))
    os.rename('/count.new', '/count')
    time.sleep(0.05)
";

fn python(test: &Test, name: &str, options: &[&str], set_up: &str) -> Container {
    let program =
        format!("import ctypes, os, socket, time\nlibc = ctypes.CDLL(None)\n{set_up}\n{COUNT}");
    let container = Container::run(test, name, options, PYTHON, &["python3", "-c", &program]);
    container.counts_past(2);
    container
}

/// The checkpoint fails with any of these words.
#[track_caller]
fn obstacle(test: &Test, container: &Container, words: &[&str]) {
    let before = container.before();
    let world = test.path(&format!("world-{}", container.id));
    let result = Containerd::connect().checkpoint_to(&container.id, &world);
    let Err(error) = result else {
        panic!("{} was captured, {words:?} notwithstanding", container.id);
    };
    let said = error.message();
    assert!(words.iter().any(|word| said.contains(word)), "{said}");
    assert!(!world.exists(), "a partial world is left after {said}");
    before.unharmed();
}

fn outside_socket(test: &Test) {
    let path = test.path("socket");
    let _listener = UnixListener::bind(&path).expect("a socket");
    let mount = format!("type=bind,src={},dst=/socket,options=bind", path.display());
    let container = python(
        test,
        "a",
        &["--mount", &mount],
        "s = socket.socket(socket.AF_UNIX)\ns.connect('/socket')",
    );
    obstacle(test, &container, &["unix socket"]);
}

fn socket_families(test: &Test) {
    for (name, make, words) in [
        (
            "v",
            "s = socket.socket(40, socket.SOCK_STREAM)",
            &["socket", "vsock"],
        ),
        (
            "m",
            "s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)",
            &["Multipath TCP", "socket"],
        ),
    ] {
        let container = python(test, name, &[], make);
        obstacle(test, &container, words);
    }
}

fn io_uring(test: &Test) {
    let set_up = "
parameters = ctypes.create_string_buffer(120)
ring = libc.syscall(425, 8, parameters)
assert ring >= 0, ring";
    obstacle(test, &python(test, "a", &[], set_up), &["io_uring"]);
}

fn traced(test: &Test) {
    let set_up = "
child = os.fork()
if child == 0:
    while True:
        time.sleep(1)
libc.ptrace(0x4206, child, 0, 0)";
    let container = python(test, "a", &["--cap-add", "CAP_SYS_PTRACE"], set_up);
    obstacle(test, &container, &["debugger", "traced", "ptrace"]);
}

/// CRIU would have to make a further name in the container's own files.
fn deleted_name(test: &Test) {
    let set_up = "
f = open('/name1', 'w')
os.link('/name1', '/name2')
os.unlink('/name1')";
    obstacle(test, &python(test, "a", &[], set_up), &["another name"]);
}

fn semaphore(test: &Test) {
    let container = python(test, "a", &[], "e = os.eventfd(7, os.EFD_SEMAPHORE)");
    obstacle(test, &container, &["eventfd as a semaphore"]);
}

fn watch_on_overlay(test: &Test) {
    let set_up = "assert libc.inotify_add_watch(libc.inotify_init(), b'/root', 0x100) > 0";
    obstacle(test, &python(test, "a", &[], set_up), &["inotify"]);
}

fn data_before_accept(test: &Test) {
    let set_up = "
listener = socket.socket(socket.AF_UNIX)
listener.bind('/listener')
listener.listen(1)
client = socket.socket(socket.AF_UNIX)
client.connect('/listener')
client.sendall(b'early')";
    obstacle(
        test,
        &python(test, "a", &[], set_up),
        &["nobody has accepted"],
    );
}

/// With cgroup version 2 that is no obstacle.
fn stopped(test: &Test) {
    let set_up = "
import signal
child = os.fork()
if child == 0:
    while True:
        time.sleep(1)
os.kill(child, signal.SIGSTOP)";
    let container = python(test, "a", &[], set_up);
    if std::path::Path::new("/sys/fs/cgroup/freezer").exists() {
        obstacle(test, &container, &["stopped by a signal"]);
    } else {
        container.checkpoint_to(test, "world");
    }
}

fn namespaces(test: &Test) {
    let set_up = "
assert libc.unshare(0x20000000) == 0
child = os.fork()
if child == 0:
    while True:
        time.sleep(1)";
    let container = python(test, "a", &["--cap-add", "CAP_SYS_ADMIN"], set_up);
    obstacle(test, &container, &["namespace"]);
}
