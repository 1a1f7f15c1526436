//! Whatever fails, the container goes on, and nothing is left of the attempt.
//!
//! Runs in the lab: `tests/lab/run TEST-BINARY`, or with that as cargo's
//! runner. `cargo test --test failure NAME` picks some tests.

#[path = "../common/mod.rs"]
mod common;
mod kills;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cases = [kills::cases()];
    common::suite::main('f', cases.into_iter().flatten().collect())
}
