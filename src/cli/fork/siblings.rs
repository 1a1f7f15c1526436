//! Siblings are started side by side, and one that fails is gone.

use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde::Serialize;

use super::interrupt::Interrupt;
use super::nanos;
use super::plan::Plan;
use crate::cli::progress::Progress;
use crate::cli::restore;
use crate::containerd::{Container, Namespace};
use crate::error::{Error, ErrorKind, Result};

/// How many are started at once for each processor: half of the time they wait.
const PER_PROCESSOR: usize = 2;

/// How long one step took.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Phase {
    pub name: &'static str,
    pub ns: u64,
}

impl Phase {
    pub fn since(name: &'static str, begun: Instant) -> Phase {
        let ns = nanos(begun.elapsed());
        Phase { name, ns }
    }
}

/// Why a sibling is not there.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Failure {
    pub kind: ErrorKind,
    pub message: String,
}

/// What became of a sibling.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub index: usize,
    pub id: String,
    pub hostname: String,
    pub pid: Option<u32>,
    pub phases: Vec<Phase>,
    pub error: Option<Failure>,
}

/// Starts all of them, whatever becomes of each.
pub(super) fn start(
    plan: &Plan,
    parent: &str,
    world: &Path,
    namespace: &Namespace,
    interrupt: &Interrupt,
) -> Vec<Outcome> {
    let _waiting = Progress::waiting("fork");
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = (processors * PER_PROCESSOR).min(plan.containers.len());
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::with_capacity(plan.containers.len()));
    let work = || {
        while let Some((index, container)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            plan.containers
                .get(index)
                .map(|container| (index, container))
        } {
            let one = Starting {
                plan,
                container,
                parent,
                world,
                namespace,
            };
            let outcome = one.run(index, interrupt);
            let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
            outcomes.push(outcome);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut outcomes = outcomes
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by_key(|outcome| outcome.index);
    outcomes
}

/// Removes those that live.
pub(super) fn remove_all(plan: &Plan, outcomes: &[Outcome], namespace: &Namespace) {
    for outcome in outcomes.iter().filter(|outcome| outcome.error.is_none()) {
        restore::remove(namespace, &plan.containers[outcome.index]);
    }
}

/// A sibling on its way.
struct Starting<'a> {
    plan: &'a Plan,
    container: &'a Container,
    parent: &'a str,
    world: &'a Path,
    namespace: &'a Namespace<'a>,
}

impl Starting<'_> {
    fn run(&self, index: usize, interrupt: &Interrupt) -> Outcome {
        let mut phases = Vec::new();
        let started = interrupt
            .check()
            .and_then(|()| self.steps(interrupt, &mut phases));
        let (pid, error) = match started {
            Ok(pid) => (Some(pid), None),
            Err(error) => (None, Some(error)),
        };
        Outcome {
            index,
            id: self.container.id.clone(),
            hostname: self.container.spec.hostname().clone().unwrap_or_default(),
            pid,
            phases,
            error: error.map(|error| Failure {
                kind: error.kind(),
                message: error.to_string(),
            }),
        }
    }

    fn steps(&self, interrupt: &Interrupt, phases: &mut Vec<Phase>) -> Result<u32> {
        let (container, namespace) = (self.container, self.namespace);
        // One that is there already is somebody else's, and stays as it is.
        timed(phases, "container", || self.make_record())?;
        let mut begin = || {
            timed(phases, "snapshot", || {
                let (snapshotter, key) = (&container.snapshotter, &container.snapshot_key);
                namespace.prepare_snapshot(snapshotter, key, self.parent)
            })?;
            interrupt.check()?;
            timed(phases, "create", || {
                namespace.create_task(container, self.world, &self.plan.streams)
            })?;
            interrupt.check()?;
            timed(phases, "start", || namespace.start_task(&container.id))
        };
        begin().inspect_err(|_| restore::remove(namespace, container))
    }

    fn make_record(&self) -> Result<()> {
        let made = self.namespace.create_container(self.container);
        made.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => Error::new(
                ErrorKind::AlreadyExists,
                format!(
                    "container {} is there already: remove it, or give another --name-prefix",
                    self.container.id
                ),
            ),
            _ => error,
        })
    }
}

fn timed<T>(
    phases: &mut Vec<Phase>,
    name: &'static str,
    step: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let begun = Instant::now();
    let done = step();
    phases.push(Phase::since(name, begun));
    done
}
