//! A process that uses the store is killed after each of its system calls in turn.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use worldshim::digest::Digest;
use worldshim::store::{Finding, GcOptions, Severity, Store};
use worldshim::sys::trace::{self, Change};

use crate::common::{name, publish, reference};
use crate::life::read_whole;

const STORE_VARIABLE: &str = "WORLDSHIM_TEST_STORE";

/// The worlds of a store: digest and names.
type State = Vec<(Digest, Vec<String>)>;

fn state(store: &Store) -> State {
    let worlds = store.list().expect("a list").into_iter();
    worlds.map(|world| (world.digest, world.names)).collect()
}

/// Uses the store in every way that changes it; `done` is called after each change.
fn scenario(path: &Path, mut done: impl FnMut(&Store)) {
    let store = Store::open(path).expect("a store");
    done(&store);
    publish(&store, &["a", "b"], Some("web"));
    done(&store);
    publish(&store, &["a", "c"], Some("web"));
    done(&store);
    store.tag(&reference("web"), &name("web:v1")).expect("tag");
    done(&store);
    store.remove(&reference("web"), false).expect("remove");
    done(&store);
    store.untag(&name("web:v1")).expect("untag");
    done(&store);
    fetch(&store, b"from elsewhere");
    let drop_untagged = GcOptions {
        drop_untagged: true,
        ..GcOptions::default()
    };
    store.gc(&drop_untagged).expect("a sweep");
    done(&store);
    publish(&store, &["a", "d"], None);
    done(&store);
}

/// In two goes.
fn fetch(store: &Store, content: &[u8]) {
    for end in [5, content.len()] {
        let lease = store.lease().expect("a lease");
        let digest = Digest::of(content);
        let blob = lease.fetch_blob(&digest, content.len() as u64);
        let mut blob = blob.expect("a fetch").expect("it is wanted");
        let offset = blob.offset() as usize;
        blob.write_all(&content[offset..end]).expect("fetch");
        assert_eq!(blob.finish().is_ok(), end == content.len());
    }
    store.sync().expect("sync");
}

/// Runs as a child of the test here: says which thread it is, and waits to be watched.
#[test]
#[ignore = "a child of the other test"]
fn watched_process() {
    let path = std::env::var_os(STORE_VARIABLE).expect("run by another test");
    let say = |what: &str| {
        let mut stdout = std::io::stdout();
        stdout.write_all(what.as_bytes()).expect("say");
        stdout.flush().expect("say");
    };
    let thread = rustix::thread::gettid().as_raw_nonzero();
    say(&format!("\nthread {thread}\n"));
    std::io::stdin().read_line(&mut String::new()).expect("go");
    scenario(path.as_ref(), |_| say("done\n"));
}

pub struct Watched {
    child: Child,
    pub thread: i32,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Watched {
    /// Starts the process; it stands before its first step.
    pub fn start(store: &Path) -> Watched {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "steps::watched_process",
                "--ignored",
                "--nocapture",
            ])
            .env(STORE_VARIABLE, store)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start");
        let mut stdout = BufReader::new(child.stdout.take().expect("its words"));
        let thread = loop {
            let mut line = String::new();
            assert_ne!(stdout.read_line(&mut line).expect("its words"), 0);
            if let Some(thread) = line.trim().strip_prefix("thread ") {
                break thread.parse().expect("a number");
            }
        };
        trace::seize(thread, libc::PTRACE_O_TRACESYSGOOD).expect("watch");
        trace::interrupt(thread).expect("stop it");
        trace::wait(thread, true).expect("its stop");
        let mut stdin = child.stdin.take().expect("its input");
        stdin.write_all(b"go\n").expect("go");
        Watched {
            child,
            thread,
            stdout,
        }
    }

    /// Lets it make so many stops, two for each system call, and kills it. Returns how many
    /// changes it said were done, and whether it came to its end before.
    fn kill_after(mut self, stops: usize) -> (usize, bool) {
        let ended = !(0..stops).all(|_| self.go_on());
        if !ended {
            self.child.kill().expect("kill");
            trace::wait(self.thread, true).expect("its end");
        }
        (self.end(), ended)
    }

    /// Lets it go to its next stop, before or after a system call; `false` where it ended.
    pub fn go_on(&mut self) -> bool {
        trace::resume_to_call(self.thread).expect("go on");
        match trace::wait(self.thread, true).expect("its stop") {
            Some(Change::Stopped { .. }) => true,
            Some(Change::Ended(0)) => false,
            other => panic!("{other:?}"),
        }
    }

    /// How many changes it said were done, now that it has ended.
    pub fn end(mut self) -> usize {
        let mut said = String::new();
        self.stdout.read_to_string(&mut said).expect("its words");
        self.child.wait().expect("its end");
        assert!(!said.contains("FAILED"), "{said}");
        said.matches("done\n").count()
    }
}

#[test]
fn a_kill_at_any_step_leaves_the_old_or_the_new() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let mut states: Vec<State> = vec![Vec::new()];
    scenario(&folder.path().join("model"), |store| {
        states.push(state(store));
    });
    for step in 0.. {
        let path = folder.path().join("store");
        // Two stops for each call, one for the call it waits in.
        let (done, ended) = Watched::start(&path).kill_after(2 * step + 1);
        check(&path, &states, done, step);
        std::fs::remove_dir_all(&path).expect("remove the store");
        if ended {
            assert_eq!(done, states.len() - 1);
            assert!(step > 200, "only {step} steps were seen");
            return;
        }
    }
}

fn check(path: &Path, states: &[State], done: usize, step: usize) {
    let store = Store::open(path).expect("still a store");
    let report = Store::fsck(path, &|_| {}).expect("a check");
    assert!(report.is_clean(), "step {step}: {:#?}", report.findings);
    let found = state(&store);
    let old_or_new = &states[done..(done + 2).min(states.len())];
    assert!(
        old_or_new.contains(&found),
        "step {step}: {found:?}, not one of {old_or_new:?}"
    );
    for (world, _) in &found {
        read_whole(&store, world);
    }
    store.gc(&GcOptions::default()).expect("a sweep");
    let report = Store::fsck(path, &|_| {}).expect("a check");
    let left = report.findings.iter();
    let left: Vec<_> = left
        .filter(|finding| !matches!(finding, Finding::Partial { .. }))
        .inspect(|finding| assert_eq!(finding.severity(), Severity::Note))
        .collect();
    assert!(left.is_empty(), "step {step}: {left:?}");
    publish(&store, &["a", "z"], Some("after"));
}
