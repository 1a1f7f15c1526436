//! A CRIU that is missing, or no CRIU at all.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::common::config::Config;
use crate::common::container::Container;
use crate::common::ctr::BUSYBOX;
use crate::common::rpc::{Containerd, Streams};
use crate::common::suite::{Case, Test, alone};

pub fn cases() -> Vec<Case> {
    vec![
        alone("criu_missing", missing),
        alone("criu_that_fails_at_once", fails_at_once),
        alone("criu_that_kills_itself", kills_itself),
    ]
}

fn refused(test: &Test, program: &Path, words: &str) {
    let container = Container::counter(test, "a", &[]);
    let good = container.checkpoint_to(test, "good");
    let config = Config::set(&format!("[criu]\npath = {program:?}\n"));
    let containerd = Containerd::connect();
    let before = container.before();
    let world = test.path("world");
    let error = containerd
        .checkpoint_to(&container.id, &world)
        .expect_err("there is no CRIU");
    assert!(error.message().contains(words), "{}", error.message());
    assert!(!world.exists());
    before.unharmed();
    let clone = Container::create(test, "b", &[], BUSYBOX, &["sh"]);
    let error = containerd.create(&clone.id, Some(&good), &Streams::default());
    let error = error.expect_err("there is no CRIU");
    assert!(error.message().contains(words), "{}", error.message());
    assert_eq!(crate::common::ctr::status(&clone.id), None);
    drop(config);
    clone.start(Some(&good), &Streams::default());
    clone.counts_past(0);
}

fn missing(test: &Test) {
    refused(test, Path::new("/nonexistent/criu"), "install criu");
}

fn script(test: &Test, text: &str) -> std::path::PathBuf {
    let path = test.path("criu");
    fs::write(&path, text).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
    path
}

fn fails_at_once(test: &Test) {
    refused(
        test,
        &script(test, "#!/bin/sh\necho no luck >&2\nexit 3\n"),
        "no luck",
    );
}

fn kills_itself(test: &Test) {
    refused(test, &script(test, "#!/bin/sh\nkill -9 $$\n"), "signal 9");
}
