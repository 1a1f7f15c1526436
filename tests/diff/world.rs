//! The command under test, with a store of the test's own.

use std::process::{Command, Output};

use serde_json::Value;

use crate::common::container::Container;
use crate::common::suite::Test;

/// Runs `world`.
pub fn run(test: &Test, words: &[&str]) -> Output {
    Command::new("world")
        .args(words)
        .env("WORLD_STORE", test.path("store"))
        .output()
        .expect("run world")
}

/// Runs `world`, which must succeed, and gives its standard output.
#[track_caller]
pub fn ok(test: &Test, words: &[&str]) -> String {
    let output = run(test, words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "world {words:?} failed: {said}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[track_caller]
pub fn checkpoint(test: &Test, container: &Container, name: &str) {
    ok(test, &["checkpoint", &container.id, name]);
}

#[track_caller]
pub fn diff(test: &Test, words: &[&str]) -> Value {
    let json = ok(test, &[&["diff", "--format", "json"], words].concat());
    serde_json::from_str(&json).expect("JSON")
}

/// The fields of each entry of a list, as words.
pub fn rows(listing: &Value, fields: &[&str]) -> Vec<String> {
    let list = listing["list"].as_array().expect("a list");
    let word = |entry: &Value, field: &&str| match &entry[*field] {
        Value::String(text) => text.clone(),
        Value::Array(texts) => {
            let texts = texts.iter().filter_map(Value::as_str);
            texts.collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    };
    list.iter()
        .map(|entry| {
            let words: Vec<_> = fields.iter().map(|field| word(entry, field)).collect();
            words.join(" ").trim_end().to_owned()
        })
        .collect()
}
