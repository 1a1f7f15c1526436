//! Other tools read what is exported, and what they write is taken or refused.

use std::process::{Command, Output};

use super::forms::{lived, store, text};
use super::verbs::World;
use crate::common::ctr;
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("checkpointctl_reads_an_archive", checkpointctl),
        shared("skopeo_reads_and_writes_a_layout", skopeo),
        shared("containerd_takes_a_layout", containerd),
        shared("an_archive_by_podman_is_told_from_ours", podman),
    ]
}

fn run(words: &[&str]) -> Output {
    let output = Command::new(words[0]).args(&words[1..]).output();
    output.unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

#[track_caller]
fn ok(words: &[&str]) -> String {
    let output = run(words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn checkpointctl(test: &Test) {
    let world = World::new(test);
    let container = lived(test, "a");
    world.checkpoint(&container.id, "x");
    for compression in ["none", "gzip", "zstd"] {
        let file = test.path(compression);
        let file = text(&file);
        world.json(&["export", "x", file, "--compress", compression]);
        let shown = ok(&["checkpointctl", "show", file]);
        for word in ["busybox:latest", "io.containerd.world.v1", "containerd"] {
            assert!(shown.contains(word), "{word}: {shown}");
        }
        assert!(shown.contains(&container.id), "{shown}");
        let inspected = ok(&["checkpointctl", "inspect", file, "--all"]);
        for word in [
            "Process tree",
            "sh -c",
            "Frozen time",
            "Open files",
            "/dev/null",
        ] {
            assert!(inspected.contains(word), "{word}: {inspected}");
        }
        let memory = ok(&["checkpointctl", "memparse", file]);
        let sizes = memory.lines().filter(|line| line.contains("KiB"));
        assert!(sizes.count() >= 1, "{memory}");
        let found = ok(&[
            "checkpointctl",
            "memparse",
            file,
            "--pid",
            "1",
            "--search",
            "/count",
        ]);
        assert!(!found.contains("No matches"), "{found}");
    }
}

fn skopeo(test: &Test) {
    let world = World::new(test);
    let container = lived(test, "a");
    let digest = world.checkpoint(&container.id, "x:1");
    let file = test.path("oci.tar");
    world.json(&["export", "x:1", text(&file), "--as", "oci"]);
    let archive = format!("oci-archive:{}:x:1", text(&file));
    let raw = ok(&["skopeo", "inspect", "--raw", &archive]);
    let manifest: serde_json::Value = serde_json::from_str(&raw).expect("JSON");
    assert_eq!(
        manifest["artifactType"],
        "application/vnd.worldshim.world.v1"
    );
    let theirs = test.path("theirs.tar");
    let target = format!("oci-archive:{}:y:2", text(&theirs));
    ok(&["skopeo", "copy", "--preserve-digests", &archive, &target]);
    let other = store(test, "other");
    let imported = other.json(&["import", text(&theirs)]);
    assert_eq!(imported["digest"], digest.as_str());
    assert_eq!(imported["name"], "y:2");
    other.sound();
}

fn containerd(test: &Test) {
    let world = World::new(test);
    let container = lived(test, "a");
    let name = format!("{}:1", test.id("w"));
    let digest = world.checkpoint(&container.id, &name);
    let file = test.path("oci.tar");
    world.json(&["export", &name, text(&file), "--as", "oci"]);
    ctr::ok(&["image", "import", text(&file)]);
    let listed = ctr::ok(&["image", "ls"]);
    let line = listed.lines().find(|line| line.starts_with(&name));
    assert!(line.is_some_and(|line| line.contains(&digest)), "{listed}");
    ctr::ok(&["image", "rm", &name]);
}

/// Podman keeps state in /run and control groups of its own; none of that is to stay.
const PODMAN: &str = r#"
set -eu
busybox mount -t tmpfs none /run
mkdir root; cp /bin/busybox root; tar cf root.tar -C root .
podman() { command podman --root /var/lib/containers/archive-test --runroot /run/storage --runtime runc --cgroup-manager cgroupfs "$@"; }
podman import root.tar localhost/bb:1
podman run --network host -d --name p localhost/bb:1 /busybox sleep 1000
podman container checkpoint --export archive.tar p
podman rm -f -t 0 p
rm -rf /var/lib/containers/archive-test
find /sys/fs/cgroup -depth -type d -path '*libpod_parent*' -exec rmdir {} + || true
"#;

fn podman(test: &Test) {
    let script = Command::new("unshare")
        .args(["--mount", "sh", "-c", PODMAN])
        .current_dir(&test.dir)
        .output()
        .expect("run podman");
    let said = String::from_utf8_lossy(&script.stderr);
    assert!(script.status.success(), "{said}");
    let world = World::new(test);
    let said = world.refused(7, &["import", text(&test.path("archive.tar"))]);
    for word in ["podman", "container restore --import"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert_eq!(world.json(&["ls"]), serde_json::json!([]));
}
