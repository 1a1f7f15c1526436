//! Worlds in a real registry, over a network that may fail: every digest is kept,
//! nothing is sent twice, nothing is half there.
//!
//! Runs in the lab: `tests/lab/run TEST-BINARY`, or with that as cargo's runner.

mod broken;
#[path = "../common/mod.rs"]
mod common;
mod credentials;
mod hostile;
mod roundtrip;
mod server;
#[path = "../artifact/verbs.rs"]
mod verbs;
mod wire;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cases = [
        roundtrip::cases(),
        broken::cases(),
        hostile::cases(),
        credentials::cases(),
    ];
    common::suite::main('r', cases.into_iter().flatten().collect())
}
