//! Containers of all sorts: each comes back, or its checkpoint says why not.

use std::fs;

use crate::common::container::Container;
use crate::common::ctr;
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("spec_read_only_rootfs", read_only),
        shared("spec_seccomp", seccomp),
        shared("spec_new_privileges_allowed", new_privileges),
        shared("spec_tmpfs_and_bind_mounts", mounts),
        shared("spec_host_network", host_network),
        shared("spec_other_user_and_capabilities", user),
        shared("spec_user_namespace", user_namespace),
        shared("spec_privileged", privileged),
        shared("spec_hostname_and_cgroup_of_the_new_spec", new_identity),
    ]
}

/// Counts in a file below a writable tmpfs.
const COUNTER: &str = "n=0; while :; do n=$((n+1)); echo $n >/t/count; sleep 0.1; done";
const TMPFS: &str = "type=tmpfs,src=tmpfs,dst=/t,options=rw:nosuid:mode=1777";

/// What the kernel says of a restored init must be what it said of the original.
fn facts(container: &Container) -> String {
    let text = fs::read_to_string(format!("/proc/{}/status", container.pid())).expect("status");
    let told = [
        "Uid:",
        "Gid:",
        "Groups:",
        "Cap",
        "NoNewPrivs:",
        "Seccomp:",
        "Seccomp_filters:",
        "NSpid:",
    ];
    let lines = text
        .lines()
        .filter(|line| told.iter().any(|name| line.starts_with(name)));
    let lines = lines.map(|line| match line.starts_with("NSpid:") {
        true => line
            .split_whitespace()
            .next_back()
            .unwrap_or_default()
            .to_owned(),
        false => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn counted(container: &Container) -> u64 {
    container.exec(&["cat", "/t/count"]).parse().unwrap_or(0)
}

/// Two generations beside the original; `same` is shown by the container itself.
fn survives(test: &Test, options: &[&str], same: &str) {
    let options = [options, &["--mount", TMPFS]].concat();
    let mut last = Container::run(test, "a", &options, ctr::BUSYBOX, &["sh", "-c", COUNTER]);
    ctr::within(20, "the counter", || counted(&last) > 1);
    let (facts_before, shown) = (facts(&last), last.exec(&["sh", "-c", same]));
    for name in ["b", "c"] {
        let image = test.image(name);
        last.checkpoint(&image);
        let at = counted(&last);
        last = Container::restore(test, name, &image);
        ctr::within(20, "the restored counter", || counted(&last) > at);
        assert!(counted(&last) < at + 600, "it started anew");
        assert_eq!(facts(&last), facts_before, "{name}");
        assert_eq!(last.exec(&["sh", "-c", same]), shown, "{name}");
    }
}

const MOUNTS: &str = "cut -d' ' -f2-4 /proc/mounts | grep -v ^/sys/fs/cgroup | cut -d, -f1 | sort; \
                      cat /proc/kcore | wc -c; id; ulimit -a";

fn read_only(test: &Test) {
    survives(test, &["--read-only"], "touch /x 2>&1; echo $?");
}

fn seccomp(test: &Test) {
    survives(test, &["--seccomp"], MOUNTS);
}

fn new_privileges(test: &Test) {
    survives(
        test,
        &["--allow-new-privs", "--rlimit-nofile", "100:200"],
        MOUNTS,
    );
}

fn mounts(test: &Test) {
    for (name, text) in [("rw", "writable"), ("ro", "only to be read")] {
        fs::create_dir(test.path(name)).expect("a folder");
        fs::write(test.path(name).join("file"), text).expect("a file");
    }
    let bind = |name: &str| {
        let source = test.path(name);
        format!(
            "type=bind,src={},dst=/{name},options=rbind:{name}",
            source.display()
        )
    };
    let (rw, ro) = (bind("rw"), bind("ro"));
    let same = "cat /rw/file /ro/file; touch /ro/x 2>&1; touch /rw/y; echo $?; ls /rw; \
                grep -E ' /(rw|ro|t) ' /proc/mounts | cut -d' ' -f2-3";
    survives(test, &["--mount", &rw, "--mount", &ro], same);
    assert!(test.path("rw").join("y").exists());
}

fn host_network(test: &Test) {
    survives(
        test,
        &["--net-host"],
        "ip -o addr | wc -l; readlink /proc/self/ns/net",
    );
}

fn user(test: &Test) {
    let options = [
        "--user",
        "1234:5678",
        "--cap-drop",
        "CAP_CHOWN",
        "--cap-add",
        "CAP_NET_ADMIN",
    ];
    if may_read_others_limits() {
        return survives(test, &options, "id");
    }
    let options = [&options[..], &["--mount", TMPFS]].concat();
    let container = Container::run(test, "a", &options, ctr::BUSYBOX, &["sh", "-c", COUNTER]);
    let said = ctr::fails(&[
        "container",
        "checkpoint",
        "--rw",
        "--task",
        &container.id,
        &test.image("a"),
    ]);
    assert!(said.contains("CAP_SYS_RESOURCE"), "{said}");
    assert_eq!(container.status(), "RUNNING");
}

/// Some virtual machines' root lacks CAP_SYS_RESOURCE, without which CRIU cannot dump processes
/// of other users. That is then to be said.
fn may_read_others_limits() -> bool {
    const CAP_SYS_RESOURCE: u64 = 24;
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.expect("CapEff") & (1 << CAP_SYS_RESOURCE) != 0
}

fn user_namespace(test: &Test) {
    let options = [
        "--uidmap",
        "0:100000:65536",
        "--gidmap",
        "0:100000:65536",
        "--remap-labels",
    ];
    survives(test, &options, "id; cat /proc/self/uid_map");
}

fn privileged(test: &Test) {
    survives(
        test,
        &["--privileged", "--privileged-without-host-devices"],
        "id",
    );
}

fn new_identity(test: &Test) {
    let cgroup = format!("/default/of-{}", test.id("a"));
    let original = Container::counter(test, "a", &["--hostname", "before", "--cgroup", &cgroup]);
    let world = original.checkpoint_to(test, "world");
    let options = ["--hostname", "after", "--memory-limit", "67108864"];
    let clone = Container::create(test, "b", &options, ctr::BUSYBOX, &["sh"]);
    clone.start(Some(&world), &Default::default());
    clone.counts_past(0);
    assert_eq!(clone.exec(&["hostname"]), "after");
    assert_eq!(original.exec(&["hostname"]), "before");
    assert_eq!(clone.cgroups(), [format!("/default/{}", clone.id)]);
    let limit = fs::read_to_string(format!(
        "/sys/fs/cgroup/memory/default/{}/memory.limit_in_bytes",
        clone.id
    ));
    assert!(limit.is_ok_and(|limit| limit.trim() == "67108864"));
    // Made from the old spec, it gets a place of its own beside the original.
    original.checkpoint(&test.image("c"));
    let third = Container::restore(test, "c", &test.image("c"));
    assert_eq!(third.cgroups(), [format!("/default/{}", third.id)]);
    assert_eq!(original.cgroups(), [cgroup]);
}
