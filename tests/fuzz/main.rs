//! Every parser of untrusted bytes, for a few seconds each: what is in `fuzz/seeds`, as it
//! is and damaged in many ways. The same ways in every run, so that a failure comes again;
//! it is told with the least damage that does it.
//!
//! `FUZZ_SECONDS` says how long; `make fuzz` runs the same targets under libFuzzer,
//! which sees what a change leads to.

mod damage;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use damage::Damage;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};

fn seconds() -> u64 {
    let told = std::env::var("FUZZ_SECONDS").ok();
    told.and_then(|seconds| seconds.parse().ok()).unwrap_or(5)
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let entries = std::fs::read_dir(folder.join(target)).expect("a folder of seeds");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a seed").path()).collect();
    files.sort();
    let read = |file| std::fs::read(file).expect("read a seed");
    files.into_iter().map(read).collect()
}

fn holds(run: fn(&[u8]), bytes: &[u8]) -> Result<(), TestCaseError> {
    let ran = catch_unwind(AssertUnwindSafe(|| run(bytes)));
    ran.map_err(|_| TestCaseError::fail("it panicked"))
}

/// Runs a target on its seeds, then on damaged ones until the time is over.
fn fuzz(target: &str, run: fn(&[u8])) {
    let seeds = seeds(target);
    assert!(!seeds.is_empty(), "no seeds for {target}");
    for seed in &seeds {
        run(seed);
    }
    let mut runner = TestRunner::new_with_rng(
        Config {
            failure_persistence: None,
            ..Config::default()
        },
        proptest::test_runner::TestRng::deterministic_rng(Default::default()),
    );
    let damage = Damage::any();
    let damage = damage.prop_map(|damage| (damage.apply(&seeds), damage));
    let end = Instant::now() + Duration::from_secs(seconds());
    let mut tried = 0;
    while Instant::now() < end {
        let input = damage.new_tree(&mut runner).expect("an input");
        match runner.run_one(input, |(bytes, _)| holds(run, &bytes)) {
            Ok(_) => tried += 1,
            Err(TestError::Fail(why, (bytes, damage))) => {
                let file = std::env::temp_dir().join(format!("fuzz-{target}"));
                std::fs::write(&file, &bytes).expect("keep what made it fail");
                panic!("{target}: {why} on {damage:?}, kept in {}", file.display());
            }
            Err(error) => panic!("{target}: {error}"),
        }
    }
    println!("{target}: {tried} inputs");
}
