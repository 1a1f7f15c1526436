//! What a checkpoint and a restore must bring through, by containerd's own means.
//!
//! Runs in the lab: `tests/lab/run TEST-BINARY`, or with that as cargo's
//! runner. `cargo test --test survival NAME` picks some tests.

mod afterwards;
mod busy;
#[path = "../common/mod.rs"]
mod common;
mod contents;
mod files;
mod paths;
mod redis;
mod specs;
mod streams;
mod tree;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cases = [
        paths::cases(),
        afterwards::cases(),
        streams::cases(),
        files::cases(),
        contents::cases(),
        busy::cases(),
        redis::cases(),
        specs::cases(),
        tree::cases(),
    ];
    common::suite::main('s', cases.into_iter().flatten().collect())
}
