//! What stands in the way is named, and the container runs on unharmed.

use std::fs;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use serde_json::json;
use worldshim::ErrorKind;
use worldshim::criu::PATIENCE;
use worldshim::world::processes::ProcessesDumped;

use crate::container::{Container, Place, eventually, freeze, read_until};
use crate::steps::{Wishes, dump, dump_with, try_dump, try_restore};
use crate::{LOOP, python};

/// After a failed dump the container, thawed, goes on.
fn assert_unharmed(container: &Container) {
    freeze(&container.place.freezer(), false);
    container.wait_for_progress("/count");
}

fn dump_wishing(container: &Container, wishes: Wishes<'_>) -> worldshim::Result<ProcessesDumped> {
    dump_with(container, &container.place.images(), &wishes)
}

fn obstacle(container: &Container, wanted: &str) {
    let error = try_dump(container, &container.place.images()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Obstacle, "{error}");
    assert!(error.to_string().contains(wanted), "{error}");
    assert_unharmed(container);
}

const COUNT: &str = "
import time
n = 0
print('ready', flush=True)
while True:
    n += 1
    open('/count', 'w').write(str(n))
    time.sleep(0.01)
";

#[test]
fn a_unix_socket_to_the_outside_is_an_obstacle() {
    let mut place = Place::new(&[]);
    let path = place.base.join("outside");
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let script =
        format!("import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect('/sock')\n{COUNT}");
    place.spec["process"]["args"] = json!(["/usr/bin/python3", "-c", script]);
    place.bind("/sock", &path, &["bind"]);
    let (container, output) = place.start();
    read_until(&output, "ready\n");
    obstacle(&container, "unix socket");
}

#[test]
fn a_file_lock_that_was_not_to_be_kept_is_an_obstacle() {
    let lock =
        format!("import fcntl\nf = open('/lock', 'w')\nfcntl.flock(f, fcntl.LOCK_EX)\n{COUNT}");
    let (container, output) = python(&lock).start();
    read_until(&output, "ready\n");
    let error = dump_wishing(
        &container,
        Wishes {
            file_locks: false,
            ..Wishes::default()
        },
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Obstacle, "{error}");
    assert!(error.to_string().contains("lock"), "{error}");
    assert_unharmed(&container);
}

#[test]
fn a_big_deleted_file_is_an_obstacle() {
    let big = format!(
        "import os\nf = open('/big', 'wb')\nf.write(bytes(3 << 20))\nf.flush()\nos.unlink('/big')\n{COUNT}"
    );
    let (container, output) = python(&big).start();
    read_until(&output, "ready\n");
    let error = dump_wishing(
        &container,
        Wishes {
            ghost_limit: 1 << 20,
            ..Wishes::default()
        },
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Obstacle, "{error}");
    assert!(error.to_string().contains("deleted"), "{error}");
    assert_unharmed(&container);
}

#[test]
fn a_dump_without_room_says_so() {
    let (container, output) = python(COUNT).start();
    read_until(&output, "ready\n");
    let small = container.place.base.join("small");
    fs::create_dir(&small).unwrap();
    let _mount = crate::container::Tmpfs::new(&small, "size=256k");
    let error = try_dump(&container, &small).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert_unharmed(&container);
}

#[test]
fn a_dump_that_is_called_off_or_late_leaves_the_container_running() {
    let (container, output) = Place::new(&["/bin/sh", "-c", LOOP]).start();
    read_until(&output, "tick 3\n");
    for milliseconds in [0, 5, 20, 40] {
        let timer =
            rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC).unwrap();
        let at = |nanoseconds| Timespec {
            tv_sec: 0,
            tv_nsec: nanoseconds,
        };
        let spec = Itimerspec {
            it_interval: at(0),
            it_value: at(milliseconds * 1_000_000 + 1),
        };
        rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &spec).unwrap();
        let began = std::time::Instant::now();
        let result = dump_wishing(
            &container,
            Wishes {
                cancel: Some(timer.as_fd()),
                ..Wishes::default()
            },
        );
        assert!(began.elapsed() < PATIENCE, "CRIU gave up by itself");
        if let Err(error) = result {
            assert_eq!(error.kind(), ErrorKind::Aborted, "{error}");
        }
        assert_unharmed(&container);

        let limit = Duration::from_millis(milliseconds.cast_unsigned());
        if let Err(error) = dump_wishing(
            &container,
            Wishes {
                timeout: limit,
                ..Wishes::default()
            },
        ) {
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        }
        assert_unharmed(&container);
    }
    dump(&container, &container.place.images());
}

#[test]
fn a_failed_restore_leaves_nothing() {
    let (original, output) = Place::new(&["/bin/sh", "-c", LOOP]).start();
    read_until(&output, "tick 3\n");
    let dumped = dump(&original, &original.place.images());
    let core = original.place.images().join("core-1.img");
    let bytes = fs::read(&core).unwrap();
    for length in [0, 10, bytes.len() / 2] {
        fs::write(&core, &bytes[..length]).unwrap();
        let place = Place::beside(&original.place);
        let error = try_restore(&original, &dumped.parameters, &place)
            .0
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CorruptWorld, "{error}");
        for procs in place.cgroup_procs() {
            assert_eq!(
                fs::read_to_string(&procs).unwrap(),
                "",
                "{}",
                procs.display()
            );
        }
    }
    assert_unharmed(&original);
}

#[test]
fn a_new_spec_that_does_not_fit_is_refused() {
    let (original, output) = Place::new(&["/bin/sh", "-c", LOOP]).start();
    read_until(&output, "tick 3\n");
    let dumped = dump(&original, &original.place.images());
    let refused = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut place = Place::beside(&original.place);
        change(&mut place.spec);
        let error = try_restore(&original, &dumped.parameters, &place)
            .0
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    };
    refused(&|spec| {
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.push(
            json!({"destination": "/extra", "type": "bind", "source": "/tmp", "options": ["bind"]}),
        );
    });
    refused(&|spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
}

/// The `criu` that works in this directory, once it is there. (Other tests may
/// have one at the same time.)
fn criu_in(work_dir: &std::path::Path) -> rustix::process::Pid {
    eventually("criu", || {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let children = tasks.map(|task| fs::read_to_string(task.path().join("children")));
        let children: Vec<String> = children.flatten().collect();
        let mut pids = children.iter().flat_map(|line| line.split_whitespace());
        pids.find(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == work_dir))
            .and_then(|pid| rustix::process::Pid::from_raw(pid.parse().unwrap()))
    })
}

#[test]
fn a_killed_criu_leaves_the_container_running() {
    let threads = format!(
        "import threading, time\ndef work():\n    while True: time.sleep(0.001)\n\
         for i in range(3): threading.Thread(target=work, daemon=True).start()\n{COUNT}"
    );
    let (container, output) = python(&threads).start();
    read_until(&output, "ready\n");
    let whole = dump(&container, &container.place.images()).took;
    assert_unharmed(&container);
    let kills = 40;
    for kill in 0..kills {
        let after = whole.mul_f64(f64::from(kill) / f64::from(kills));
        let work_dir = container.place.log();
        let killer = std::thread::spawn(move || {
            let pid = criu_in(&work_dir);
            std::thread::sleep(after);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        });
        let result = try_dump(&container, &container.place.images());
        killer.join().unwrap();
        if let Err(error) = result {
            assert_eq!(error.kind(), ErrorKind::Criu, "{error}");
            assert!(error.to_string().contains("signal 9"), "{error}");
        }
        assert_unharmed(&container);
        let status = fs::read_to_string(format!("/proc/{}/status", container.pid)).unwrap();
        assert!(status.contains("SigBlk:\t0000000000000000"), "{status}");
        assert!(status.contains("TracerPid:\t0"), "{status}");
        let descriptors = fs::read_dir(format!("/proc/{}/fd", container.pid)).unwrap();
        let links = descriptors
            .flatten()
            .map(|entry| fs::read_link(entry.path()));
        let ours: Vec<_> = links
            .flatten()
            .filter(|link| link.ends_with("dump.log"))
            .collect();
        assert!(ours.is_empty(), "CRIU's log is open in the container");
        let maps = fs::read_to_string(format!("/proc/{}/maps", container.pid)).unwrap();
        assert!(!maps.contains("CRIUMFD"), "CRIU's code is in the container");
    }
    dump(&container, &container.place.images());
}

/// Stands for the short-lived process that dumps.
#[test]
#[ignore = "run by the next test, in a process of its own"]
fn dumps_the_container_of_another_process() {
    let told: serde_json::Value = serde_json::from_str(&std::env::var("DUMP").unwrap()).unwrap();
    let container = std::mem::ManuallyDrop::new(Container {
        place: Place {
            id: told["id"].as_str().unwrap().to_owned(),
            base: told["base"].as_str().unwrap().into(),
            spec: told["spec"].clone(),
        },
        pid: i32::try_from(told["pid"].as_i64().unwrap()).unwrap(),
    });
    dump(&container, &container.place.images());
}

#[test]
fn a_killed_dumper_leaves_the_container_running() {
    let (container, output) = python(COUNT).start();
    read_until(&output, "ready\n");
    let whole = dump(&container, &container.place.images()).took;
    assert_unharmed(&container);
    let place = &container.place;
    let told =
        json!({"id": place.id, "base": place.base, "spec": place.spec, "pid": container.pid});
    for kill in 0..10 {
        let mut dumper = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "failures::dumps_the_container_of_another_process",
                "--ignored",
            ])
            .env("DUMP", told.to_string())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        eventually("the dump", || {
            place.log().join("criu.pid").exists().then_some(())
        });
        std::thread::sleep(whole.mul_f64(f64::from(kill) / 10.0));
        dumper.kill().unwrap();
        dumper.wait().unwrap();
        worldshim::world::processes::await_orphan(&place.log(), Duration::from_secs(20)).unwrap();
        assert_unharmed(&container);
    }
    dump(&container, &container.place.images());
}
