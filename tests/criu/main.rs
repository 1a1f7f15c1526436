//! Real containers dumped and restored by our CRIU driver. Run in the lab:
//! `tests/lab/run --bare TEST-BINARY`.

mod container;
mod failures;
mod network;
mod steps;
mod streams;

use std::fs;
use std::process::Command;

use container::{Place, freeze, is_frozen, read_until};
use serde_json::json;
use steps::{dump, restore};

const LOOP: &str = "i=0; while :; do i=$((i+1)); echo $i > /count; echo tick $i; sleep 0.02; done";

/// A container that runs a python program.
fn python(script: &str) -> Place {
    Place::new(&["/usr/bin/python3", "-u", "-c", script])
}

#[test]
fn a_loop_goes_on_in_two_clones_beside_the_original() {
    let (original, output) = Place::new(&["/bin/sh", "-c", LOOP]).start();
    read_until(&output, "tick 3\n");
    let dumped = dump(&original, &original.place.images());
    assert!(is_frozen(&original.place.freezer()));
    assert_eq!(dumped.processes[0].pid, 1);
    assert_eq!(
        dumped.parameters.hostname.as_deref(),
        original.place.spec["hostname"].as_str()
    );
    let at: u64 = original.read("/count").trim().parse().unwrap_or(0);

    let clone = || {
        restore(
            &original,
            &dumped.parameters,
            Place::beside(&original.place),
        )
    };
    let (first, first_output, _) = clone();
    let (second, second_output, _) = clone();
    freeze(&original.place.freezer(), false);
    for (clone, output) in [(&first, &first_output), (&second, &second_output)] {
        read_until(output, &format!("tick {}\n", at + 3));
        let name = clone.exec("hostname");
        assert_eq!(name.trim(), clone.place.spec["hostname"].as_str().unwrap());
    }
    original.wait_for_progress("/count");

    // The second generation: a checkpoint of a restored container.
    let again = dump(&first, &first.place.images());
    let at: u64 = first.read("/count").trim().parse().unwrap_or(0);
    let (third, third_output, _) = restore(&first, &again.parameters, Place::beside(&first.place));
    read_until(&third_output, &format!("tick {}\n", at + 3));
    assert!(third.is_alive() && second.is_alive());
}

#[test]
fn memory_threads_children_and_locks_come_back() {
    let script = "
import fcntl, hashlib, os, random, threading, time
memory = random.Random(1).randbytes(1 << 20) * 64
digest = hashlib.sha256(memory).hexdigest()
lock = open('/lock', 'w'); fcntl.flock(lock, fcntl.LOCK_EX)
gone = open('/gone', 'w+'); gone.write('still here'); gone.flush(); os.unlink('/gone')
counts = [0] * 8
def work(i):
    while True:
        counts[i] += 1; time.sleep(0.005)
for i in range(8): threading.Thread(target=work, args=(i,), daemon=True).start()
reader, writer = os.pipe()
if os.fork() == 0:
    n = 0
    while True:
        n += 1; os.write(writer, b'%d\\n' % n); time.sleep(0.02)
lines = os.fdopen(reader)
print('ready')
while True:
    line = lines.readline().strip()
    gone.seek(0)
    assert gone.read() == 'still here'
    assert hashlib.sha256(memory).hexdigest() == digest
    probe = open('/lock')
    try: fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB); locked = False
    except BlockingIOError: locked = True
    print('line', line, 'locked', locked, 'threads', min(counts), threading.active_count())
";
    let (original, output) = python(script).start();
    read_until(&output, "line 3 ");
    let dumped = dump(&original, &original.place.images());
    assert_eq!(dumped.processes.len(), 2);
    assert_eq!(dumped.processes[0].threads, 9);
    let (clone, output, _) = restore(
        &original,
        &dumped.parameters,
        Place::beside(&original.place),
    );
    let text = read_until(&output, " 9\n");
    assert!(text.contains("locked True threads"), "{text}");

    let again = dump(&clone, &clone.place.images());
    let (_second, output, _) = restore(&clone, &again.parameters, Place::beside(&clone.place));
    read_until(&output, "locked True threads");
}

#[test]
fn mounts_come_back_with_new_sources_and_old_restrictions() {
    let mut place = Place::new(&["/bin/sh", "-c", LOOP]);
    for name in ["one", "two", "three"] {
        let source = place.base.join(name);
        fs::create_dir_all(source.join("below")).unwrap();
        fs::write(source.join("name"), name).unwrap();
    }
    let base = place.base.clone();
    place.bind("/data/one", &base.join("one"), &["rbind", "ro", "nosuid"]);
    place.bind("/data/two", &base.join("two"), &["rbind", "ro", "nosuid"]);
    place.bind("/var/tmp/../three", &base.join("three/name"), &["bind"]);
    let mounts = place.spec["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": "/scratch", "type": "tmpfs", "source": "tmpfs"}));
    let (original, output) = place.start();
    read_until(&output, "tick 3\n");
    original.exec("echo kept > /scratch/file; echo kept > /dev/shm/file");
    let dumped = dump(&original, &original.place.images());

    let mut new = Place::beside(&original.place);
    for mount in new.spec["mounts"].as_array_mut().unwrap() {
        let source = mount["source"].as_str().unwrap_or_default().to_owned();
        if source.starts_with(base.to_str().unwrap()) {
            let moved = source.replace(base.to_str().unwrap(), new.base.to_str().unwrap());
            run_copy(&source, &moved);
            mount["source"] = json!(moved);
        }
    }
    fs::write(new.base.join("one/name"), "new one").unwrap();
    let (clone, output, _) = restore(&original, &dumped.parameters, new);
    read_until(&output, "tick");
    assert_eq!(clone.read("/data/one/name"), "new one");
    assert_eq!(clone.read("/data/two/name"), "two");
    assert_eq!(clone.read("/var/three"), "three");
    assert_eq!(clone.read("/scratch/file"), "kept\n");
    assert_eq!(clone.read("/dev/shm/file"), "kept\n");
    assert_eq!(
        clone
            .exec("cat /proc/timer_list /proc/keys; ls /sys/firmware /proc/acpi")
            .trim(),
        "/proc/acpi:\n\n/sys/firmware:"
    );
    for path in ["/data/one/x", "/data/two/x", "/sys/firmware/x", "/sys/x"] {
        let tried = clone.exec(&format!("touch {path} 2>&1 || true"));
        assert!(tried.contains("Read-only"), "{path}: {tried}");
    }
    let again = dump(&clone, &clone.place.images());
    assert_eq!(
        again.parameters.external_mounts,
        dumped.parameters.external_mounts
    );
}

fn run_copy(from: &str, to: &str) {
    fs::create_dir_all(std::path::Path::new(to).parent().unwrap()).unwrap();
    container::run(Command::new("cp").args(["-a", from, to]));
}

#[test]
fn an_executed_process_is_left_out_and_lives_on() {
    let (original, output) = Place::new(&["/bin/sh", "-c", LOOP]).start();
    read_until(&output, "tick 3\n");
    let mut exec = Command::new("runc")
        .args(["exec", &original.place.id, "sleep", "1000"])
        .spawn()
        .unwrap();
    let named = |processes: &[worldshim::world::processes::Process]| {
        processes
            .iter()
            .any(|process| process.comm == "sleep" && process.host_parent != original.pid)
    };
    container::eventually("the exec", || {
        let listed = container::run(Command::new("runc").args(["ps", &original.place.id]));
        listed.contains("sleep 1000").then_some(())
    });
    let dumped = dump(&original, &original.place.images());
    assert!(named(&dumped.omitted), "{:?}", dumped.omitted);
    freeze(&original.place.freezer(), false);
    let (_clone, output, _) = restore(
        &original,
        &dumped.parameters,
        Place::beside(&original.place),
    );
    read_until(&output, "tick");
    assert!(
        exec.try_wait().unwrap().is_none(),
        "the exec'd process lives on"
    );
    drop(original);
    exec.wait().unwrap();
}

#[test]
fn own_cgroup_namespace_and_user_namespace_come_back() {
    let mut place = Place::new(&["/bin/sh", "-c", LOOP]);
    let namespaces = place.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "cgroup");
    namespaces.push(json!({"type": "cgroup"}));
    let (original, output) = place.start();
    read_until(&output, "tick 3\n");
    let dumped = dump(&original, &original.place.images());
    let (clone, output, _) = restore(
        &original,
        &dumped.parameters,
        Place::beside(&original.place),
    );
    read_until(&output, "tick");
    let link = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/cgroup")).unwrap();
    let ours = fs::read_link("/proc/self/ns/cgroup").unwrap();
    assert!(link(clone.pid) != ours && link(clone.pid) != link(original.pid));
    let again = dump(&clone, &clone.place.images());
    let (_third, output, _) = restore(&clone, &again.parameters, Place::beside(&clone.place));
    read_until(&output, "tick");
}

#[test]
fn a_container_in_a_user_namespace_comes_back() {
    let mut place = Place::new(&["/bin/sh", "-c", LOOP]);
    let namespaces = place.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({"type": "user"}));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    place.spec["linux"]["uidMappings"] = map.clone();
    place.spec["linux"]["gidMappings"] = map;
    place.own_rootfs(100_000);
    let (original, output) = place.start();
    read_until(&output, "tick 3\n");
    let dumped = dump(&original, &original.place.images());
    let (clone, output, _) = restore(
        &original,
        &dumped.parameters,
        Place::beside(&original.place),
    );
    read_until(&output, "tick");
    let map = fs::read_to_string(format!("/proc/{}/uid_map", clone.pid)).unwrap();
    assert!(map.contains("100000"), "{map}");
    let again = dump(&clone, &clone.place.images());
    let (_third, output, _) = restore(&clone, &again.parameters, Place::beside(&clone.place));
    read_until(&output, "tick");
}

#[test]
fn criu_answers_what_it_is() {
    container::require_lab();
    let criu = worldshim::criu::Criu::find(None).unwrap();
    let printed = container::run(Command::new("criu").arg("--version"));
    let version = criu.require_version().unwrap().to_string();
    assert!(printed.contains(&version), "{printed} {version}");
    criu.check().unwrap();
    criu.features().unwrap();
}
