//! `world gc`: the store without what nobody needs.

use serde::Serialize;

use super::output::{self, Format};
use super::places::{ContainerdArgs, StoreArgs};
use super::progress;
use crate::error::{ErrorKind, Result};
use crate::store::{GcOptions, Swept};

/// `world gc`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only tell what would be removed
    #[arg(long)]
    dry_run: bool,

    /// Remove the worlds that have no name, too
    #[arg(long)]
    untagged: bool,

    #[command(flatten)]
    store: StoreArgs,

    #[command(flatten)]
    containerd: ContainerdArgs,
}

/// What was removed.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    swept: Swept,
    /// containerd's snapshots of files that no fork stands on any more; null where containerd
    /// does not run.
    snapshots: Option<Vec<String>>,
}

pub(super) fn run(args: &Args, format: Format) -> Result<()> {
    let swept = args.store.open_existing()?.gc(&GcOptions {
        dry_run: args.dry_run,
        drop_untagged: args.untagged,
        ..GcOptions::default()
    })?;
    let snapshots = match snapshots(args) {
        Err(error) if error.kind() == ErrorKind::Unavailable => None,
        snapshots => Some(snapshots?),
    };
    let report = Report { swept, snapshots };
    output::print(format, &report, |report| words(report, args.dry_run))
}

/// In all of containerd's namespaces.
fn snapshots(args: &Args) -> Result<Vec<String>> {
    let containerd = args.containerd.connect()?;
    let snapshotters = containerd.snapshotters()?;
    let mut removed = Vec::new();
    for name in containerd.namespaces()? {
        let namespace = containerd.namespace(&name)?;
        for snapshotter in &snapshotters {
            removed.extend(namespace.remove_unused(snapshotter, args.dry_run)?);
        }
    }
    Ok(removed)
}

fn words(report: &Report, dry_run: bool) -> String {
    let swept = &report.swept;
    let verb = match dry_run {
        true => "would remove",
        false => "removed",
    };
    let mut text = String::new();
    for world in &swept.worlds {
        text += &format!("{verb} world {world}\n");
    }
    for snapshot in report.snapshots.iter().flatten() {
        text += &format!("{verb} snapshot {snapshot}\n");
    }
    text + &format!(
        "{verb} {} in {} blobs and {} temporary files; kept {} in {} blobs\n",
        progress::size(swept.bytes + swept.temporary_bytes),
        swept.blobs,
        swept.temporaries,
        progress::size(swept.kept_bytes),
        swept.kept_blobs,
    )
}
