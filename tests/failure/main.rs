//! Whatever fails, the container goes on, and nothing is left of the attempt.
//!
//! Runs in the lab: `tests/lab/run TEST-BINARY`, or with that as cargo's
//! runner. `cargo test --test failure NAME` picks some tests.

mod clients;
#[path = "../common/mod.rs"]
mod common;
mod criu;
mod kills;
mod obstacles;
mod restores;
mod space;
mod worlds;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cases = [
        kills::cases(),
        criu::cases(),
        space::cases(),
        obstacles::cases(),
        restores::cases(),
        worlds::cases(),
        clients::cases(),
    ];
    common::suite::main('f', cases.into_iter().flatten().collect())
}
