//! `world diff` tells exactly what a container did between two checkpoints.
//!
//! Runs in the lab: `tests/lab/run TEST-BINARY`, or with that as cargo's runner.

#[path = "../common/mod.rs"]
mod common;
mod damage;
mod steps;
mod twins;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cases = [steps::cases(), twins::cases(), damage::cases()];
    common::suite::main('y', cases.into_iter().flatten().collect())
}
