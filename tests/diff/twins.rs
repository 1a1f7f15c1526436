//! Worlds of different containers: two of one image, and one brought back.

use serde_json::json;

use crate::common::container::Container;
use crate::common::ctr::{self, PYTHON, within};
use crate::common::suite::{Case, Test, shared};
use crate::world::{checkpoint, diff, ok, rows};

pub fn cases() -> Vec<Case> {
    vec![
        shared("two_containers_of_one_image", twins),
        shared("a_container_and_its_restored_self", restored),
    ]
}

/// Has pipes, sockets, files and waits.
const PROGRAM: &str = "
import os, select, signal, socket, tempfile
ends = os.pipe()
pair = socket.socketpair()
poll = select.epoll()
poll.register(ends[0])
named = socket.socket(socket.AF_UNIX)
named.bind('/named')
named.listen()
abstract = socket.socket(socket.AF_UNIX)
abstract.bind('\\0abstract')
lines = open('/lines', 'w+')
lines.write('one')
lines.flush()
if os.fork():
    open('/ready', 'w')
signal.pause()
";

fn start(test: &Test, name: &str, options: &[&str]) -> Container {
    let container = Container::run(test, name, options, PYTHON, &["python3", "-c", PROGRAM]);
    within(20, "a program that waits", || {
        container.path("/ready").exists()
    });
    container
}

fn twins(test: &Test) {
    const SECRETS: [&str; 2] = ["hunter2-hunter2", "correct-horse-battery"];
    let options = |number: usize| {
        let secret = format!("API_TOKEN={}", SECRETS[number]);
        [format!("STEP={number}"), secret, "SAME=1".to_owned()]
    };
    for (number, name) in ["a", "b"].into_iter().enumerate() {
        let variables = options(number);
        let mut words = Vec::new();
        for variable in &variables {
            words.extend(["--env", variable]);
        }
        let container = start(test, name, &words);
        checkpoint(test, &container, name);
    }
    let told = diff(test, &["a", "b"]);
    let variables = &told["environment"]["variables"];
    assert_eq!(
        rows(
            variables,
            &["change", "name", "before", "after", "redacted"]
        ),
        ["changed API_TOKEN null null true", "changed STEP 0 1 false"]
    );
    assert_eq!(rows(&told["processes"], &["pid"]), [""; 0]);
    assert_eq!(
        rows(&told["processes"]["open_files"], &["pid", "fd", "what"]),
        [""; 0]
    );
    assert_eq!(told["files"]["same_image"], json!(true));
    let words = ok(test, &["diff", "a", "b"]);
    for text in [words, told.to_string()] {
        assert!(
            !SECRETS.iter().any(|secret| text.contains(secret)),
            "{text}"
        );
    }
}

fn restored(test: &Test) {
    let container = start(test, "a", &[]);
    checkpoint(test, &container, "w:0");
    checkpoint(test, &container, "w:1");
    container.remove();
    let id = test.id("b");
    ok(test, &["restore", "w:1", "--id", &id]);
    let back = Container { id };
    within(20, "a running container", || back.status() == "RUNNING");
    checkpoint(test, &back, "w:2");
    let told = diff(test, &["w:1", "w:2"]);
    // A restore binds sockets anew.
    assert_eq!(
        rows(&told["files"], &["change", "path", "what"]),
        ["changed /named time"]
    );
    assert_eq!(rows(&told["processes"], &["pid", "what"]), [""; 0]);
    assert_eq!(
        rows(&told["processes"]["open_files"], &["pid", "fd", "what"]),
        [""; 0]
    );
    assert_eq!(rows(&told["environment"]["variables"], &["name"]), [""; 0]);
    // The C library's own state changes a little; regions side by side become one.
    let pages = |field: &str| told["memory"][field].as_u64().expect("a number");
    assert!(pages("pages_differing") <= 10, "{}", told["memory"]);
    assert!(pages("pages_before") > 1000, "{}", told["memory"]);
    ctr::remove(&back.id);
}
