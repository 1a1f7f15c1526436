//! The parity suite: what a user sees of containers under `io.containerd.world.v1`,
//! beside the same under `io.containerd.runc.v2`.
//!
//! `cases` is one table. Each case is a bash script that runs once per runtime
//! (see `prelude.sh` for its vocabulary). Compared are what it prints, the task
//! events in their order, and what is left in `/run`, `/tmp`, control groups,
//! mounts and processes when its containers are deleted. The table also says
//! what is printed, so that a script that is broken the same way on both sides
//! does not pass; and where ours differs on purpose, it says how and why.
//!
//! Cases run side by side in one lab; `cargo test --test parity NAME` picks some.

mod case;
mod cases;
mod events;
#[path = "../common/lab.rs"]
mod lab;
mod leftovers;
mod rpc;
mod side;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use events::Events;
use leftovers::Leftovers;

/// More than the processors: cases mostly wait.
const THREADS: usize = 4;

fn main() -> ExitCode {
    let mut words = std::env::args();
    if words.nth(1).as_deref() == Some(rpc::ARGUMENT) {
        return rpc::main(words);
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(THREADS));
    if !arguments.list
        && let Some(why) = lab::missing()
    {
        eprintln!("{why}");
        return ExitCode::FAILURE;
    }
    // containerd makes some folders when the first container runs.
    side::warm_up();
    let before = Leftovers::of("");
    let events = Arc::new(Events::watch());
    let trials = cases::all()
        .enumerate()
        .map(|(number, case)| {
            let events = events.clone();
            Trial::test(case.name, move || side::compare(number, case, &events))
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    let left = leftovers::settled(|| Leftovers::of("").beyond(&before));
    if !left.is_empty() {
        eprintln!("left behind by the suite as a whole:\n{left}");
    }
    match conclusion.has_failed() || !left.is_empty() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}
