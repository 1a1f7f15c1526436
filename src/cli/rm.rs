//! `world rm`: names, and worlds with their last name; and the siblings of forks.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::output::{self, Format};
use super::places::{ContainerdArgs, StoreArgs};
use crate::containerd::{Listed, Namespace, TaskState};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::store::Reference;
use crate::world::fork::{EXPIRES_LABEL, FORK_LABEL};
use crate::world::trust::WORLD_LABEL;

/// How long a container that is being started may take to let itself be removed.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);

/// `world rm`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The worlds: a name is taken from its world; with the last one, or by its digest, the
    /// world goes. What only it needed goes with the next `world gc`.
    #[arg(required_unless_present = "forks_of")]
    worlds: Vec<Reference>,

    /// Remove a world by its digest although it has several names
    #[arg(short, long)]
    force: bool,

    /// Remove the containers that were forked of this world, or by the fork with this id, with
    /// their tasks and snapshots; the world stays
    #[arg(long, value_name = "WORLD|FORK", conflicts_with = "worlds")]
    forks_of: Option<String>,

    /// Of those, only the ones whose time is over
    #[arg(long, requires = "forks_of")]
    expired: bool,

    #[command(flatten)]
    store: StoreArgs,

    #[command(flatten)]
    containerd: ContainerdArgs,
}

#[derive(Debug, Serialize)]
struct Line {
    digest: Digest,
    names: Vec<String>,
    /// The world itself is gone, not only the name.
    gone: bool,
}

pub(super) fn run(args: &Args, format: Format) -> Result<()> {
    if let Some(of) = &args.forks_of {
        return siblings(args, of, format);
    }
    let store = args.store.open_existing()?;
    let mut lines = Vec::new();
    for world in &args.worlds {
        let removed = store.remove(world, args.force)?;
        lines.push(Line {
            digest: removed.digest,
            names: removed.names,
            gone: removed.gone,
        });
    }
    output::print(format, &lines, |lines| lines.iter().map(words).collect())
}

fn words(line: &Line) -> String {
    let names = line.names.join(", ");
    match line.gone {
        true => format!("removed {} {names}\n", line.digest),
        false => format!("untagged {names}\n"),
    }
}

/// What became of the siblings.
#[derive(Debug, Serialize)]
struct Siblings {
    removed: Vec<String>,
    /// Snapshots that only they stood on.
    snapshots: Vec<String>,
    failed: Vec<String>,
}

fn siblings(args: &Args, of: &str, format: Format) -> Result<()> {
    let containerd = args.containerd.connect()?;
    let namespace = containerd.namespace(&args.containerd.namespace)?;
    let found = find(args, of, &namespace)?;
    let mut report = Siblings {
        removed: Vec::new(),
        snapshots: Vec::new(),
        failed: Vec::new(),
    };
    let mut below = BTreeSet::new();
    for sibling in &found {
        if args.expired && !is_over(sibling) {
            continue;
        }
        let snapshotter = &sibling.snapshotter;
        if let Some(snapshot) = namespace.snapshot(snapshotter, &sibling.snapshot_key)? {
            below.insert((snapshotter.clone(), snapshot.parent));
        }
        // What a killed command left to hold them.
        if let Some(fork) = sibling.labels.get(FORK_LABEL) {
            namespace.let_go(snapshotter, fork)?;
        }
        match remove(&namespace, sibling) {
            Ok(()) => report.removed.push(sibling.id.clone()),
            Err(error) => report.failed.push(format!("{}: {error}", sibling.id)),
        }
    }
    for (snapshotter, name) in below {
        if namespace.remove_if_unused(&snapshotter, &name)? {
            report.snapshots.push(name);
        }
    }
    output::print(format, &report, |report| {
        let removed = report.removed.iter().map(|id| format!("removed {id}\n"));
        removed.collect()
    })?;
    match report.failed.first() {
        None => Ok(()),
        Some(first) => Err(Error::new(
            ErrorKind::WrongState,
            format!(
                "{} sibling(s) could not be removed: {first}",
                report.failed.len()
            ),
        )),
    }
}

/// Those of a fork, or those of all forks of a world.
fn find(args: &Args, of: &str, namespace: &Namespace) -> Result<Vec<Listed>> {
    if of.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let found = namespace.containers(&format!("labels.\"{FORK_LABEL}\"==\"{of}\""))?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    // A world that is gone from the store may still have forks.
    let digest = match of.parse::<Digest>() {
        Ok(digest) => digest,
        Err(_) => {
            let store = args.store.open_existing()?;
            let lease = store.lease()?;
            store.resolve_held(&of.parse::<Reference>()?, &lease)?
        }
    };
    let filter = format!("labels.\"{FORK_LABEL}\",labels.\"{WORLD_LABEL}\"==\"{digest}\"");
    namespace.containers(&filter)
}

fn is_over(sibling: &Listed) -> bool {
    let expires = sibling.labels.get(EXPIRES_LABEL);
    let expires = expires.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    expires.is_some_and(|expires| expires <= OffsetDateTime::now_utc())
}

/// Ends and removes a container. One that is being started right now is waited for.
pub(super) fn remove(namespace: &Namespace, container: &Listed) -> Result<()> {
    end(namespace, &container.id)?;
    namespace.delete_container(&container.id)?;
    match container.snapshot_key.as_str() {
        "" => Ok(()),
        key => namespace.remove_snapshot(&container.snapshotter, key),
    }
}

/// Ends and deletes a container's task.
pub(super) fn end(namespace: &Namespace, id: &str) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        let step = match namespace.task(id)? {
            None => return Ok(()),
            Some(TaskState::Running | TaskState::Paused) => namespace.kill_task(id),
            Some(TaskState::Created | TaskState::Stopped) => namespace.delete_task(id),
        };
        if let Err(error) = step {
            if Instant::now() > end {
                return Err(error);
            }
            std::thread::sleep(PAUSE);
        }
    }
}
