//! The `world` command on a store of the test's own.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use crate::common::suite::Test;

/// A store, and the command that works on it.
pub struct World {
    pub store: PathBuf,
}

impl World {
    pub fn new(test: &Test) -> World {
        World {
            store: test.path("store"),
        }
    }

    /// Runs a verb, whatever comes of it.
    pub fn run(&self, arguments: &[&str]) -> Output {
        Command::new("world")
            .args(arguments)
            .env("WORLD_STORE", &self.store)
            .env_remove("WORLD_LOG")
            .output()
            .expect("run world")
    }

    /// Runs a verb that succeeds and gives its JSON.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut words = vec!["--format", "json"];
        words.extend(arguments);
        let output = self.run(&words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "world {arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).expect("JSON on stdout")
    }

    /// Runs a verb that fails with this exit status; gives the one line it said.
    #[track_caller]
    pub fn refused(&self, status: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            output.status.code(),
            Some(status),
            "world {arguments:?}: {said}"
        );
        assert_eq!(said.lines().count(), 1, "one line: {said}");
        assert!(output.stdout.is_empty());
        said
    }

    /// `world checkpoint`, and the digest.
    #[track_caller]
    pub fn checkpoint(&self, container: &str, name: &str) -> String {
        let report = self.json(&["checkpoint", container, name]);
        report["digest"].as_str().expect("a digest").to_owned()
    }

    /// The store is as it must be.
    #[track_caller]
    pub fn sound(&self) {
        let report = self.json(&["fsck"]);
        assert_eq!(report["findings"], serde_json::json!([]), "{report:#}");
    }
}
