//! Forks: many containers out of one, each somebody, none in another's way.
//!
//! Runs in the lab: `tests/lab/run TEST-BINARY`, or with that as cargo's runner.

#[path = "../common/mod.rs"]
mod common;
mod failures;
mod files;
mod generations;
mod identity;
mod memory;
mod redis;
mod rollback;
mod siblings;
#[path = "../artifact/verbs.rs"]
mod verbs;
mod waiting;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cases = [
        identity::cases(),
        files::cases(),
        generations::cases(),
        waiting::cases(),
        rollback::cases(),
        redis::cases(),
        memory::cases(),
        failures::cases(),
    ];
    common::suite::main('x', cases.into_iter().flatten().collect())
}
