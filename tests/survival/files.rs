//! What processes see of files is what was there at the checkpoint's instant.

use crate::common::container::Container;
use crate::common::ctr::{self, BUSYBOX};
use crate::common::rpc::Streams;
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("files_are_those_of_the_instant", of_the_instant),
        shared("files_without_the_rw_layer", without_rw),
        shared("files_under_the_same_name_changed_since", same_name),
        shared("files_of_a_snapshot_that_differs", other_snapshot),
    ]
}

/// All that a layer can hold: owners, modes, links, whiteouts, an opaque directory, holes.
const PREPARE: &str = "
mkdir -p /data/sub/deep /data/empty
echo one >/data/file; ln /data/file /data/hard; ln -s file /data/link; ln -s /nowhere /data/dangling
chmod 640 /data/file; chown 12:34 /data/sub; chmod 1777 /data/empty
mkfifo /data/fifo /data/fifo2; mknod /data/null c 1 3
echo odd >'/data/odd \" name '
dd if=/dev/zero of=/data/sparse bs=1 count=1 seek=1048575 2>/dev/null
touch -d '2001-02-03 04:05:06' /data/old
rm /etc/os-release
rm -rf /var; mkdir /var; echo only >/var/only
exec 5<>/data/open; echo before >&5
touch /ready
while :; do read nothing </data/fifo2; done";

/// Changes everything that [`PREPARE`] made, and more.
const SPOIL: &str = "
echo two >/data/file; rm /data/hard; ln -sf other /data/link; rm -r /data/sub /data/fifo; mkdir /data/fifo
echo added >/data/added; mkdir -p /new/dir; echo x >/new/dir/x; ln /new/dir/x /new/dir/y
echo again >/etc/os-release; rm -f /var/only; mkdir -p /var/back; chmod 700 /data; chown 5:5 /data/empty
rm -f /bin/wget; rm /data/open; ln /data/added /data/open; rm -rf /usr; touch /ready";

/// Every file with all that can be seen of it, less what the kernel makes.
const LIST: &str = "cd /
find . -xdev ! -path ./dev ! -path ./proc ! -path ./sys ! -path ./run -exec stat -c '%n %F %a %u:%g %h %s %Y %t' {} +
find . -xdev -type l -exec readlink {} + | sort | uniq -c
find . -xdev -type f -exec md5sum {} +";

fn prepared(test: &Test) -> (Container, String) {
    let container = Container::run(test, "a", &[], BUSYBOX, &["sh", "-c", PREPARE]);
    ctr::within(10, "the files", || container.path("/ready").exists());
    let list = container.exec(&["sh", "-c", LIST]);
    assert!(list.contains("./data/odd"), "{list}");
    (container, list)
}

#[track_caller]
fn same(container: &Container, expected: &str) {
    let found = container.exec(&["sh", "-c", LIST]);
    let missing: Vec<&str> = expected
        .lines()
        .filter(|line| !found.lines().any(|l| l == *line))
        .collect();
    let added: Vec<&str> = found
        .lines()
        .filter(|line| !expected.lines().any(|l| l == *line))
        .collect();
    assert!(
        missing.is_empty() && added.is_empty(),
        "missing: {missing:#?}\nadded: {added:#?}"
    );
}

fn of_the_instant(test: &Test) {
    let (original, list) = prepared(test);
    original.checkpoint(&test.image("1"));
    original.exec(&["sh", "-c", SPOIL]);
    same(&Container::restore(test, "b", &test.image("1")), &list);
}

fn without_rw(test: &Test) {
    let (original, list) = prepared(test);
    ctr::ok(&[
        "container",
        "checkpoint",
        "--task",
        &original.id,
        &test.image("1"),
    ]);
    original.remove();
    let id = test.id("b");
    ctr::ok(&["container", "restore", "--live", &id, &test.image("1")]);
    same(&Container { id }, &list);
}

fn same_name(test: &Test) {
    let (original, list) = prepared(test);
    let world = original.checkpoint_to(test, "world");
    original.exec(&["sh", "-c", SPOIL]);
    ctr::run(&["task", "rm", "--force", &original.id]);
    original.start(Some(&world), &Streams::default());
    same(&original, &list);
}

fn other_snapshot(test: &Test) {
    let (original, list) = prepared(test);
    let world = original.checkpoint_to(test, "world");
    let other = Container::create(
        test,
        "b",
        &[],
        BUSYBOX,
        &["sh", "-c", &format!("mkdir -p /data/empty; {SPOIL}")],
    );
    other.start(None, &Streams::default());
    ctr::within(10, "the end of the spoiler", || other.status() == "STOPPED");
    ctr::run(&["task", "rm", &other.id]);
    other.start(Some(&world), &Streams::default());
    same(&other, &list);
    // A second generation is the same once more.
    let world = other.checkpoint_to(test, "world2");
    let third = Container::create(test, "c", &[], BUSYBOX, &["sh"]);
    third.start(Some(&world), &Streams::default());
    same(&third, &list);
}
