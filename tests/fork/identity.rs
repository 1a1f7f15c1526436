//! Each sibling is somebody: names, numbers, seeds, clocks, and being told of it.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::siblings::Fork;
use super::verbs::World;
use crate::common::container::Container;
use crate::common::ctr::{self, BUSYBOX, PYTHON, within};
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("eight_count_on_each_as_somebody_else", eight),
        shared("a_running_container_goes_on", running),
        shared("what_is_asked_for_is_given", asked),
        shared("they_are_told_by_a_signal", told_by_signal),
        shared("they_are_told_by_a_program", told_by_program),
        shared("files_of_the_host_stay_as_they_are", bound),
    ]
}

/// Counts without a pause, and notes if it ever was a sibling without a generation.
const COUNTER: &str = "
import os, socket, time
def put(name, text):
    open(name + '.new', 'w').write(text); os.rename(name + '.new', name)
first = socket.gethostname()
put('/etc/machine-id', '0123456789abcdef0123456789abcdef\\n')
os.makedirs('/var/lib/dbus', exist_ok=True)
put('/var/lib/dbus/machine-id', '0123456789abcdef0123456789abcdef\\n')
put('/etc/hostname', first + '\\n')
put('/etc/hosts', '127.0.0.1 localhost\\n10.0.0.2 ' + first + ' ' + first + '.example # ' + first + '\\n')
n, log, clock = 0, open('/log', 'a'), time.monotonic()
while True:
    n += 1
    if socket.gethostname() != first and not os.path.exists('/run/worldshim/generation'):
        open('/late', 'w').write(str(n))
    now = time.monotonic()
    if now < clock: open('/backwards', 'w').write('%f %f' % (clock, now))
    clock = now
    if n % 100 == 0:
        log.write('%d\\n' % n); log.flush()
        put('/count', str(n))
        time.sleep(0.01)
";

fn eight(test: &Test) {
    let world = World::new(test);
    let options = ["--hostname", "the-first"];
    let source = Container::run(test, "a", &options, PYTHON, &["python3", "-c", COUNTER]);
    source.counts_past(1000);
    let digest = world.checkpoint(&source.id, "x");
    let at_world = source.count();
    let fork = Fork::of(test, &world, "x", "s", &["-n", "8"]);
    assert_eq!(fork.report["world"], digest.as_str());
    assert_eq!(fork.report["files"]["kind"], "shared");
    assert_eq!(fork.report["frozen_ns"], Value::Null);
    assert_eq!(fork.siblings.len(), 8);
    let mut seen: Vec<BTreeSet<String>> = vec![BTreeSet::new(); 9];
    for (index, sibling) in fork.siblings.iter().enumerate() {
        let reported = &fork.report["siblings"][index];
        assert_eq!(reported["pid"].as_i64(), Some(sibling.pid().into()));
        sibling.counts_past(at_world);
        let generation: Value =
            serde_json::from_str(&sibling.exec(&["cat", "/run/worldshim/generation"]))
                .expect("JSON");
        assert_eq!(generation["fork"], fork.report["fork"]);
        assert_eq!(generation["index"], index);
        assert_eq!(generation["parent"], digest.as_str());
        let mode = sibling.exec(&["stat", "-c", "%a %u", "/run/worldshim/generation"]);
        assert_eq!(mode, "444 0");
        let seed = generation["seed"].as_str().expect("a seed").to_owned();
        assert_eq!(seed.len(), 64);
        let machine = sibling.read("/etc/machine-id");
        assert_eq!(machine.len(), 32);
        assert_eq!(sibling.read("/var/lib/dbus/machine-id"), machine);
        assert_eq!(sibling.read("/etc/hostname"), sibling.id);
        let hosts = sibling.read("/etc/hosts");
        assert!(
            hosts.contains(&format!("10.0.0.2 {} ", sibling.id)),
            "{hosts}"
        );
        let link = |kind| {
            let path = format!("/proc/{}/ns/{kind}", sibling.pid());
            fs::read_link(path)
                .expect("a namespace")
                .display()
                .to_string()
        };
        let all = [
            seed,
            machine,
            sibling.exec(&["hostname"]),
            sibling.cgroups().join(" "),
            link("net"),
            link("uts"),
            link("time"),
            link("mnt"),
            sibling.id.clone(),
        ];
        for (kind, value) in seen.iter_mut().zip(all) {
            assert!(kind.insert(value.clone()), "{value} is another's, too");
        }
        let record = ctr::ok(&["container", "info", &sibling.id]);
        let record: Value = serde_json::from_str(&record).expect("JSON");
        assert_eq!(record["Labels"]["dev.worldshim.fork"], fork.report["fork"]);
        assert_eq!(
            record["Labels"]["dev.worldshim.fork.index"],
            index.to_string()
        );
        assert_eq!(record["Labels"]["dev.worldshim.world"], digest.as_str());
    }
    counted_on(&source, &fork);
    apart(&source, &fork);
    fork.remove(&world);
    source.counts_past(source.count());
    world.sound();
}

/// From the same number, each in steps, and no clock went back.
fn counted_on(source: &Container, fork: &Fork) {
    let numbers = |container: &Container| -> Vec<u64> {
        let log = container.read("/log");
        log.lines()
            .map(|line| line.parse().expect("a number"))
            .collect()
    };
    let first = numbers(source);
    for sibling in &fork.siblings {
        let counted = numbers(sibling);
        assert!(counted.windows(2).all(|pair| pair[1] == pair[0] + 100));
        assert_eq!(counted[0], first[0]);
        for name in ["/late", "/backwards"] {
            assert!(!sibling.path(name).exists(), "{name} in {}", sibling.id);
        }
    }
}

/// What one writes, no other sees.
fn apart(source: &Container, fork: &Fork) {
    for sibling in &fork.siblings {
        let text = format!(
            "echo {0} >/mine; echo {0} >>/log-of-all; echo {0} >/run/mine",
            sibling.id
        );
        sibling.exec(&["sh", "-c", &text]);
    }
    for sibling in &fork.siblings {
        let said = sibling.exec(&["cat", "/mine", "/log-of-all", "/run/mine"]);
        assert_eq!(said, format!("{0}\n{0}\n{0}", sibling.id));
    }
    assert!(!source.path("/mine").exists());
}

fn running(test: &Test) {
    let world = World::new(test);
    let source = Container::counter(test, "a", &[]);
    let before = source.before();
    let fork = Fork::of(test, &world, &source.id, "s", &["-n", "2"]);
    let at_fork = source.count();
    before.unharmed();
    assert!(fork.report["frozen_ns"].as_u64() > Some(0));
    for sibling in &fork.siblings {
        sibling.goes_on_from(before.count);
    }
    source.counts_past(at_fork);
    // It has no name, and is there for those who made it.
    let listed = world.json(&["ls"]);
    assert_eq!(listed[0]["names"], serde_json::json!([]));
    assert_eq!(listed[0]["digest"], fork.report["world"]);
    let digest = fork.report["world"].as_str().expect("a digest").to_owned();
    let removed = world.json(&["rm", "--forks-of", &digest]);
    assert_eq!(removed["removed"].as_array().map(Vec::len), Some(2));
    // A name that means both is asked about.
    world.checkpoint(&source.id, &source.id.to_lowercase());
    if source.id == source.id.to_lowercase() {
        let said = world.refused(2, &["fork", &source.id]);
        assert!(said.contains("--container"), "{said}");
    }
}

fn asked(test: &Test) {
    let world = World::new(test);
    let source = Container::counter(test, "a", &["--env", "COLOUR=red", "--label", "app=x"]);
    world.checkpoint(&source.id, "x");
    let options = [
        "-n",
        "2",
        "--hostname",
        "web-{index}",
        "--env",
        "COLOUR=blue",
        "--label",
        "role=test",
    ];
    let fork = Fork::of(test, &world, "x", "s", &options);
    for (index, sibling) in fork.siblings.iter().enumerate() {
        let said = sibling.exec(&["sh", "-c", "echo $(hostname) $COLOUR"]);
        assert_eq!(said, format!("web-{index} blue"));
        let record = ctr::ok(&["container", "info", &sibling.id]);
        let record: Value = serde_json::from_str(&record).expect("JSON");
        assert_eq!(record["Labels"]["role"], "test");
        assert_eq!(record["Labels"]["app"], "x");
    }
    let kinds: Vec<_> = fork.report["siblings"][0]["phases"]
        .as_array()
        .expect("phases")
        .iter()
        .map(|phase| phase["name"].as_str().expect("a name").to_owned())
        .collect();
    assert_eq!(kinds, ["container", "snapshot", "create", "start"]);
    for words in [
        &["fork", "x", "-n", "2", "--tcp", "heir", "--tcp-heir", "2"][..],
        &["fork", "x", "--hostname", "a b"],
        &["fork", "x", "--ttl", "soon"],
        &["fork", "x", "--notify", "mail"],
        &["fork", "x", "--paused", "--notify", "exec:/bin/true"],
        &["fork", "x", "-n", "0"],
    ] {
        assert_eq!(world.run(words).status.code(), Some(2), "{words:?}");
    }
    world.refused(3, &["fork", "none-of-that"]);
}

fn told_by_signal(test: &Test) {
    let world = World::new(test);
    let program = "trap 'cat /run/worldshim/generation >/told' USR1; while :; do sleep 0.1; done";
    let annotation = "dev.worldshim.fork.notify=signal:SIGUSR1";
    let options = ["--annotation", annotation];
    let source = Container::run(test, "a", &options, BUSYBOX, &["sh", "-c", program]);
    world.checkpoint(&source.id, "x");
    let fork = Fork::of(test, &world, "x", "s", &["-n", "2"]);
    for sibling in &fork.siblings {
        within(20, "a signal", || sibling.path("/told").exists());
        within(20, "its handler", || sibling.read("/told").contains("seed"));
    }
    assert!(!source.path("/told").exists());
}

fn told_by_program(test: &Test) {
    let world = World::new(test);
    let source = Container::counter(test, "a", &[]);
    source.exec(&[
        "sh",
        "-c",
        "printf '#!/bin/sh\\necho $1 >/told\\n' >/renew; chmod +x /renew",
    ]);
    world.checkpoint(&source.id, "x");
    let options = ["-n", "2", "--notify", "exec:/renew yourself"];
    let fork = Fork::of(test, &world, "x", "s", &options);
    for sibling in &fork.siblings {
        within(20, "a program", || sibling.path("/told").exists());
        assert_eq!(sibling.read("/told"), "yourself");
        sibling.counts_past(sibling.count());
    }
    // One that is not there does no harm, and is told of.
    let fork = Fork::of(test, &world, "x", "t", &["--notify", "exec:/none"]);
    fork.siblings[0].counts_past(fork.siblings[0].count());
}

fn bound(test: &Test) {
    let world = World::new(test);
    let (hosts, name) = (test.path("hosts"), test.path("hostname"));
    let mount = |path: &std::path::Path, to: &str| {
        format!("type=bind,src={},dst={to},options=rbind:rw", path.display())
    };
    fs::write(&hosts, "10.0.0.2 the-first\n").expect("write");
    fs::write(&name, "the-first\n").expect("write");
    let options = [
        "--hostname",
        "the-first",
        "--mount",
        &mount(&hosts, "/etc/hosts"),
        "--mount",
        &mount(&name, "/etc/hostname"),
    ];
    let source = Container::counter(test, "a", &options);
    world.checkpoint(&source.id, "x");
    let said = world.refused(7, &["fork", "x"]);
    assert!(said.contains("--trust"), "{said}");
    let fork = Fork::of(test, &world, "x", "s", &["-n", "2", "--trust"]);
    for sibling in &fork.siblings {
        let said = sibling.exec(&["cat", "/etc/hosts", "/etc/hostname"]);
        assert_eq!(said, format!("10.0.0.2 {0}\n{0}", sibling.id));
        sibling.exec(&["sh", "-c", "echo more >>/etc/hosts"]);
    }
    assert_eq!(
        fs::read_to_string(&hosts).expect("read"),
        "10.0.0.2 the-first\n"
    );
    assert_eq!(fs::read_to_string(&name).expect("read"), "the-first\n");
}
