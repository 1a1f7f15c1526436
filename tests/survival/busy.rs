//! What a shim answers, and what signals do, while a big process is dumped.

use std::path::{Path, PathBuf};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use containerd_client::tonic::Status;

use crate::common::container::Container;
use crate::common::ctr::{self, PYTHON, within};
use crate::common::processes;
use crate::common::rpc::{Containerd, Streams};
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("busy_shim_answers_and_a_signal_arrives_afterwards", answers),
        shared("busy_kill_aborts_the_dump", kill_aborts),
    ]
}

const SLOWEST: Duration = Duration::from_secs(1);

fn big(test: &Test) -> Container {
    Container::big(test, "a", 512)
}

/// A checkpoint on a thread of its own.
struct Checkpoint(JoinHandle<Result<(), Status>>);

impl Checkpoint {
    /// Begins, and returns when CRIU is at work.
    fn begin(container: &Container, path: &Path) -> Checkpoint {
        let (id, to): (String, PathBuf) = (container.id.clone(), path.to_owned());
        let thread = std::thread::spawn(move || Containerd::connect().checkpoint_to(&id, &to));
        let begun = || thread.is_finished() || processes::dumping_criu_of(&container.id).is_some();
        within(20, "CRIU at work", begun);
        Checkpoint(thread)
    }

    fn goes_on(&self) -> bool {
        !self.0.is_finished()
    }

    fn end(self) -> Result<(), Status> {
        self.0.join().expect("the thread")
    }
}

fn answers(test: &Test) {
    let container = big(test);
    let world = test.path("world");
    let containerd = Containerd::connect();
    let dump = Checkpoint::begin(&container, &world);
    let mut rounds = 0;
    while dump.goes_on() {
        let timed = |what: &str, ask: &dyn Fn()| {
            let begun = Instant::now();
            ask();
            assert!(
                begun.elapsed() < SLOWEST,
                "{what} took {:?} during a dump",
                begun.elapsed()
            );
        };
        timed("State", &|| {
            assert!(containerd.state(&container.id).is_ok())
        });
        timed("Pids", &|| {
            assert!(containerd.pids(&container.id).expect("pids") > 0)
        });
        timed("Stats", &|| {
            assert!(!ctr::ok(&["task", "metrics", &container.id]).is_empty())
        });
        if rounds == 0 {
            timed("Kill", &|| {
                containerd.kill(&container.id, 15).expect("SIGTERM")
            });
        }
        if dump.goes_on() {
            rounds += 1;
        }
        sleep(Duration::from_millis(20));
    }
    assert!(rounds > 0, "the dump was too quick to be looked at");
    dump.end().expect("checkpoint");
    within(10, "SIGTERM's arrival", || {
        container.path("/got-term").exists()
    });
    container.counts_past(container.count());
    // The signal was pending in the world, too, or came before it: it is not lost there.
    let at = container.count();
    container.remove();
    let clone = Container::create(test, "b", &[], PYTHON, &["python3"]);
    clone.start(Some(&world), &Streams::default());
    clone.counts_past(0);
    assert!(clone.count() <= at + 200);
}

fn kill_aborts(test: &Test) {
    let container = big(test);
    let world = test.path("world");
    let dump = Checkpoint::begin(&container, &world);
    let begun = Instant::now();
    Containerd::connect()
        .kill(&container.id, 9)
        .expect("SIGKILL");
    let error = dump.end().expect_err("the dump was aborted");
    within(5, "the end of the task", || container.status() == "STOPPED");
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        !world.exists(),
        "a partial world is left: {}",
        error.message()
    );
}
