//! Worlds as files: exported, read by other tools, imported; and what is refused.
//!
//! Runs in the lab: `tests/lab/run TEST-BINARY`, or with that as cargo's runner.

#[path = "../common/mod.rs"]
mod common;
mod files;
mod forms;
mod hostile;
mod kills;
mod tools;
#[path = "../artifact/verbs.rs"]
mod verbs;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cases = [
        forms::cases(),
        tools::cases(),
        hostile::cases(),
        kills::cases(),
    ];
    common::suite::main('y', cases.into_iter().flatten().collect())
}
