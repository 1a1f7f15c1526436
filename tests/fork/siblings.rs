//! Making siblings, and removing what they leave.

use serde_json::Value;

use crate::common::container::Container;
use crate::common::ctr;
use crate::common::suite::Test;
use crate::verbs::World;

/// A fork's siblings.
pub struct Fork {
    pub report: Value,
    pub siblings: Vec<Container>,
}

impl Fork {
    /// `world fork SOURCE -n COUNT --name-prefix ...`, which succeeds.
    #[track_caller]
    pub fn of(test: &Test, world: &World, source: &str, name: &str, options: &[&str]) -> Fork {
        let prefix = test.id(name);
        let mut words = vec!["fork", source, "--name-prefix", &prefix];
        words.extend(options);
        let report = world.json(&words);
        assert_eq!(report["failed"], 0, "{report:#}");
        let siblings = ids(&report).map(|id| Container { id }).collect();
        Fork { report, siblings }
    }

    /// Removes all of its containers.
    #[track_caller]
    pub fn remove(self, world: &World) {
        let id = self.report["fork"].as_str().expect("an id").to_owned();
        let removed = world.json(&["rm", "--forks-of", &id]);
        let count = removed["removed"].as_array().map(Vec::len);
        assert_eq!(count, Some(self.siblings.len()), "{removed:#}");
    }
}

/// The ids of a report's siblings.
pub fn ids(report: &Value) -> impl Iterator<Item = String> {
    let siblings = report["siblings"].as_array().expect("siblings");
    siblings
        .iter()
        .map(|one| one["id"].as_str().expect("an id").to_owned())
}

/// The snapshots and containers of the test.
pub fn left(test: &Test) -> Vec<String> {
    let prefix = test.id("");
    let mut left = Vec::new();
    for words in [["container", "ls"], ["snapshots", "ls"], ["task", "ls"]] {
        let listed = ctr::ok(&words);
        let ours = listed.lines().filter(|line| line.starts_with(&prefix));
        left.extend(ours.map(str::to_owned));
    }
    left
}
