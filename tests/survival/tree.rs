//! A tree of many processes that checks itself (`tree.py`) through two generations.

use std::collections::BTreeMap;
use std::fs;

use crate::common::container::Container;
use crate::common::ctr::{PYTHON, within};
use crate::common::rpc::Containerd;
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![shared("tree_of_processes_through_two_generations", tree)]
}

fn tree(test: &Test) {
    let program = include_str!("tree.py");
    let script = test.path("tree.py");
    fs::write(&script, program).expect("write the program");
    let mount = format!(
        "type=bind,src={},dst=/program,options=rbind:ro",
        test.dir.display()
    );
    let options = ["--mount", &mount, "--env", "TREE=green"];
    let mut last = Container::run(
        test,
        "a",
        &options,
        PYTHON,
        &["python3", "/program/tree.py"],
    );
    all_well(&last, 0);
    ask(&last, 1);
    let processes = Containerd::connect().pids(&last.id).expect("pids");
    assert!(processes >= 20, "only {processes} processes");
    for (number, name) in [(2, "b"), (4, "c")] {
        let image = test.image(name);
        last.checkpoint(&image);
        // The original bears it, too.
        ask(&last, number);
        last.remove();
        last = Container::restore(test, name, &image);
        ask(&last, number);
        ask(&last, number + 1);
    }
}

/// Has the tree check itself.
#[track_caller]
fn ask(container: &Container, number: u32) {
    fs::write(container.path(&format!("/ask-{number}")), "").expect("ask");
    all_well(container, number);
}

#[track_caller]
fn all_well(container: &Container, number: u32) {
    let answer = container.path(&format!("/answer-{number}"));
    within(60, &format!("answer {number} of {}", container.id), || {
        answer.exists()
    });
    let text = fs::read_to_string(&answer).expect("the answer");
    let verdicts: BTreeMap<String, String> = serde_json::from_str(&text).expect("JSON");
    assert!(verdicts.len() > 20, "{verdicts:?}");
    let wrong: Vec<String> = verdicts
        .iter()
        .filter(|(_, verdict)| *verdict != "ok")
        .map(|(item, verdict)| format!("{item}: {verdict}"))
        .collect();
    assert!(
        wrong.is_empty(),
        "{}, check {number}:\n{}",
        container.id,
        wrong.join("\n")
    );
}
