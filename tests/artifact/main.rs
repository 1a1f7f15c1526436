//! Worlds in the store: made of running containers, brought back, and never half.
//!
//! Runs in the lab: `tests/lab/run TEST-BINARY`, or with that as cargo's runner.

mod base;
#[path = "../common/mod.rs"]
mod common;
mod crashes;
mod damage;
mod life;
mod lineage;
mod published;
mod refusals;
mod verbs;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cases = [
        life::cases(),
        base::cases(),
        lineage::cases(),
        published::cases(),
        refusals::cases(),
        damage::cases(),
        crashes::cases(),
    ];
    common::suite::main('w', cases.into_iter().flatten().collect())
}
