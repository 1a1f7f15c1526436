//! Suites of tests that run side by side in one lab, each with ids of its own,
//! and each with a look at what it left behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::RwLock;

use libtest_mimic::{Arguments, Failed, Trial};

use super::ctr::{self, BUSYBOX};
use super::lab;
use super::leftovers::{self, Leftovers};

/// More than the processors: tests mostly wait.
const THREADS: usize = 3;
/// Folder of the tests' own files: on the lab's disk, and not in /run or /tmp,
/// which are searched for leftovers.
const DIR: &str = "/var/lib/worldshim-tests";

/// Held for writing by a test that is to run alone.
static ALONE: RwLock<()> = RwLock::new(());

/// One test of a suite.
pub struct Case {
    name: &'static str,
    run: fn(&Test),
    alone: bool,
}

/// A test that bears others beside it.
pub const fn shared(name: &'static str, run: fn(&Test)) -> Case {
    Case {
        name,
        run,
        alone: false,
    }
}

/// A test that changes what all share, such as containerd or the configuration.
pub const fn alone(name: &'static str, run: fn(&Test)) -> Case {
    Case {
        name,
        run,
        alone: true,
    }
}

/// What a test has to itself.
pub struct Test {
    prefix: String,
    /// A folder on the disk.
    pub dir: PathBuf,
}

impl Test {
    /// The id of a container.
    pub fn id(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The name of a checkpoint's image.
    pub fn image(&self, name: &str) -> String {
        format!("example.test/{}{name}:1", self.prefix)
    }

    /// A path in the test's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn new(prefix: String) -> Test {
        let dir = Path::new(DIR).join(&prefix);
        fs::create_dir_all(&dir).expect("make a folder in the lab");
        Test { prefix, dir }
    }

    /// Removes what the test made and says what stays all the same.
    fn finish(&self) -> Leftovers {
        ctr::remove_all(&self.prefix);
        let left = leftovers::settled(|| Leftovers::of(&self.prefix));
        let _ = fs::remove_dir_all(&self.dir);
        left
    }
}

/// Runs a suite. `letter` is no hexadecimal digit and the suite's own: ids are
/// looked for in all sorts of names.
pub fn main(letter: char, cases: Vec<Case>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(THREADS));
    if !arguments.list
        && let Some(why) = lab::missing()
    {
        eprintln!("{why}");
        return ExitCode::FAILURE;
    }
    let before = match arguments.list {
        true => Leftovers::default(),
        false => {
            // containerd makes some folders when the first container runs, and CRIU
            // keeps what it learns of the kernel in /run/criu.kdat.
            let criu = std::process::Command::new("criu").arg("check").output();
            assert!(
                criu.is_ok_and(|output| output.status.success()),
                "criu check fails"
            );
            ctr::ok(&[
                "run",
                "--rm",
                "--runtime",
                ctr::RUNTIME,
                BUSYBOX,
                "warm-up",
                "true",
            ]);
            Leftovers::of("")
        }
    };
    let trials = cases
        .into_iter()
        .enumerate()
        .map(|(number, case)| trial(format!("{letter}{number}x"), case))
        .collect();
    let listing = arguments.list;
    let conclusion = libtest_mimic::run(&arguments, trials);
    if listing {
        return ExitCode::SUCCESS;
    }
    let left = leftovers::settled(|| Leftovers::of("").beyond(&before));
    if !left.is_empty() {
        eprintln!("left behind by the suite as a whole:\n{left}");
    }
    match conclusion.has_failed() || !left.is_empty() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

fn trial(prefix: String, case: Case) -> Trial {
    Trial::test(case.name, move || {
        let _held = match case.alone {
            true => (
                None,
                Some(
                    ALONE
                        .write()
                        .unwrap_or_else(|poisoned| poisoned.into_inner()),
                ),
            ),
            false => (
                Some(
                    ALONE
                        .read()
                        .unwrap_or_else(|poisoned| poisoned.into_inner()),
                ),
                None,
            ),
        };
        let test = Test::new(prefix);
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (case.run)(&test)));
        let left = test.finish();
        if let Err(panic) = ran {
            std::panic::resume_unwind(panic);
        }
        match left.is_empty() {
            true => Ok(()),
            false => Err(Failed::from(format!("left behind:\n{left}"))),
        }
    })
}
