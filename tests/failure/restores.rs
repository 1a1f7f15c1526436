//! A restore that fails ends as a stopped task, never as a fresh start.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use containerd_client::types::v1::Status as TaskStatus;

use crate::common::container::Container;
use crate::common::ctr::{self, BUSYBOX, within};
use crate::common::leftovers::{self, Leftovers};
use crate::common::processes;
use crate::common::rpc::{Containerd, Streams};
use crate::common::suite::{Case, Test, alone, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("restore_without_a_bind_mount_s_source", without_a_source),
        alone("restore_whose_criu_is_killed", criu_killed),
        alone("restore_whose_helper_is_killed", helper_killed),
    ]
}

/// Starts the created clone, which must fail; what is left is one stopped task that can be deleted.
fn fails_to_start(
    test: &Test,
    original: &Container,
    clone: &Container,
    during: impl FnOnce() + Send + 'static,
) {
    let containerd = Containerd::connect();
    let events = test.path(&format!("events-{}", clone.id));
    let mut listener = Command::new("ctr")
        .arg("events")
        .stdout(fs::File::create(&events).expect("a file"))
        .spawn()
        .expect("ctr events");
    std::thread::sleep(Duration::from_millis(300));
    let before = original.before();
    let disturber = std::thread::spawn(during);
    let error = containerd.start(&clone.id).expect_err("the restore fails");
    disturber.join().expect("the disturber");
    let (status, exit) = containerd.state(&clone.id).expect("the task is there");
    assert_eq!(
        (status, exit),
        (TaskStatus::Stopped, 255),
        "{}",
        error.message()
    );
    within(10, "an exit event", || {
        let told = fs::read_to_string(&events).unwrap_or_default();
        told.lines()
            .any(|line| line.contains("/tasks/exit") && line.contains(&clone.id))
    });
    let _ = listener.kill();
    let _ = listener.wait();
    let path = Path::new("/sys/fs/cgroup/freezer/default").join(&clone.id);
    assert!(!path.exists(), "a cgroup is left: {}", error.message());
    assert!(
        containerd.start(&clone.id).is_err(),
        "a stopped task starts anew"
    );
    assert_eq!(containerd.delete(&clone.id).expect("delete"), 255);
    ctr::ok(&["container", "rm", &clone.id]);
    let left = leftovers::settled(|| Leftovers::of(&clone.id));
    assert!(left.is_empty(), "after {}:\n{left}", error.message());
    before.unharmed();
}

fn without_a_source(test: &Test) {
    let source = test.path("source");
    fs::create_dir(&source).expect("a folder");
    let mount = format!(
        "type=bind,src={},dst=/data,options=rbind:rw",
        source.display()
    );
    let original = Container::counter(test, "a", &["--mount", &mount]);
    let world = original.checkpoint_to(test, "world");
    let gone = test.path("gone");
    let other = format!(
        "type=bind,src={},dst=/data,options=rbind:rw",
        gone.display()
    );
    let clone = Container::create(test, "b", &["--mount", &other], BUSYBOX, &["sh"]);
    let containerd = Containerd::connect();
    // Either of the two calls may notice it.
    match containerd.create(&clone.id, Some(&world), &Streams::default()) {
        Ok(()) => fails_to_start(test, &original, &clone, || {}),
        Err(error) => assert!(error.message().contains("/data"), "{}", error.message()),
    }
}

fn killed(test: &Test, find: fn(&str) -> Option<i32>) {
    let original = Container::counter(test, "a", &[]);
    let world = original.checkpoint_to(test, "world");
    for round in 0..6u64 {
        let clone = Container::create(test, &format!("c{round}"), &[], BUSYBOX, &["sh"]);
        let containerd = Containerd::connect();
        containerd
            .create(&clone.id, Some(&world), &Streams::default())
            .expect("create");
        let id = clone.id.clone();
        fails_to_start(test, &original, &clone, move || {
            let end = std::time::Instant::now() + Duration::from_secs(10);
            while std::time::Instant::now() < end {
                if let Some(pid) = find(&id) {
                    std::thread::sleep(Duration::from_millis(round * 3));
                    processes::kill(pid);
                    return;
                }
            }
        });
    }
    remove_criu_s_folders();
}

/// A killed CRIU leaves empty folders in /tmp whose names tell nothing of whose they are. Removing
/// one under a CRIU that still works would unmount its files, so that the shim leaves them.
fn remove_criu_s_folders() {
    for entry in fs::read_dir("/tmp").expect("list /tmp").flatten() {
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with(".criu.mntns.")
        {
            fs::remove_dir(entry.path()).expect("an empty folder of CRIU's");
        }
    }
}

fn criu_killed(test: &Test) {
    killed(test, processes::criu_of);
}

fn helper_killed(test: &Test) {
    killed(test, processes::helper_of);
}
