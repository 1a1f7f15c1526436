//! `world import`: a file, a directory or an image becomes a world of the store.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;

use super::output::{self, Format};
use super::places::{ContainerdArgs, StoreArgs};
use super::progress::{self, Progress};
use crate::archive::{self, ImportRequest, Imported, Origin};
use crate::digest::Digest;
use crate::error::{IoContext, Result};
use crate::store::{Lease, WorldName};
use crate::world::artifact::parent_of;

/// What comes before the name of an image in containerd's store.
const IMAGE: &str = "ctr:";

/// `world import`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A file that `world export`, skopeo (oci-archive) or `ctr image export` wrote, a world
    /// directory, or ctr:IMAGE for one that `ctr container checkpoint` made
    source: Source,

    /// What to call it [default: as it was called, or like its container]
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<WorldName>,

    #[command(flatten)]
    store: StoreArgs,

    #[command(flatten)]
    containerd: ContainerdArgs,
}

#[derive(Debug, Clone)]
enum Source {
    Path(PathBuf),
    Image(String),
}

impl FromStr for Source {
    type Err = Infallible;

    fn from_str(text: &str) -> std::result::Result<Source, Infallible> {
        Ok(match text.strip_prefix(IMAGE) {
            Some(image) => Source::Image(image.to_owned()),
            None => Source::Path(text.into()),
        })
    }
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Report {
    digest: Digest,
    name: String,
    /// The world that had the name before.
    displaced: Option<Digest>,
    parent: Option<Digest>,
    /// What it came as: `checkpoint`, `oci`, `directory` or `containerd`.
    form: &'static str,
    /// Of all that the world consists of.
    bytes: u64,
    /// Of what the store did not have before.
    new_bytes: u64,
    /// The rescued directory that it was, which is gone now.
    removed: Option<PathBuf>,
}

pub(super) fn run(args: &Args, format: Format) -> Result<()> {
    // What is not there makes no store.
    if let Source::Path(path) = &args.source {
        std::fs::metadata(path).context(|| format!("open {}", path.display()))?;
    }
    let store = args.store.open()?;
    let lease = store.lease()?;
    let imported = import(args, &lease)?;
    let report = Report {
        digest: imported.published.digest,
        name: imported.name.to_string(),
        displaced: imported.published.displaced,
        parent: parent_of(&imported.artifact.annotations),
        form: imported.form,
        bytes: imported.artifact.size() + imported.published.size,
        new_bytes: imported.new_bytes,
        removed: imported.removed,
    };
    output::print(format, &report, words)
}

fn import(args: &Args, lease: &Lease) -> Result<Imported> {
    let bar = Progress::of_bytes("import", 0);
    let progress = |bytes| bar.add(bytes);
    let request = |origin| ImportRequest {
        origin,
        lease,
        name: args.name.as_ref(),
        progress: &progress,
    };
    match &args.source {
        Source::Path(path) => archive::import(&request(Origin::Path(path))),
        Source::Image(image) => {
            let containerd = args.containerd.connect()?;
            let namespace = containerd.namespace(&args.containerd.namespace)?;
            archive::import(&request(Origin::Image(&namespace, image)))
        }
    }
}

fn words(report: &Report) -> String {
    let mut text = format!(
        "{}\nname    {}\nsize    {}, {} new\n",
        report.digest,
        report.name,
        progress::size(report.bytes),
        progress::size(report.new_bytes),
    );
    text += &output::displaced(report.displaced);
    if let Some(removed) = &report.removed {
        text += &format!(
            "removed {}, which was rescued and is in the store now\n",
            removed.display()
        );
    }
    text
}
