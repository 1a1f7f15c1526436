//! `world pull`: a world of a registry comes to the store.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::output::{self, Format};
use super::places::{RegistryArgs, StoreArgs};
use super::progress::{self, Progress};
use crate::digest::Digest;
use crate::error::Result;
use crate::registry::{Remote, RemoteReference, Transfer};
use crate::store::WorldName;

/// `world pull`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where it is: HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]
    #[arg(value_name = "REF")]
    reference: RemoteReference,

    /// What it is to be called: NAME[:TAG] [default: the repository's last part and the tag]
    name: Option<WorldName>,

    #[command(flatten)]
    registry: RegistryArgs,

    #[command(flatten)]
    store: StoreArgs,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Report {
    reference: String,
    name: Option<String>,
    /// The world that had the name before.
    displaced: Option<Digest>,
    #[serde(flatten)]
    transfer: Transfer,
    seconds: f64,
}

pub(super) fn run(args: &Args, format: Format) -> Result<()> {
    let begun = Instant::now();
    let name = match &args.name {
        Some(name) => Some(name.clone()),
        None => args.reference.world_name()?,
    };
    let remote = Remote::for_pull(&args.reference, &args.registry.access())?;
    let found = remote.find()?;
    let store = args.store.open()?;
    let lease = store.lease()?;
    let bar = Arc::new(Progress::of_bytes("pull", found.bytes()));
    let pulled = remote.pull(&found, &lease, name.as_ref(), &progress::watch(&bar));
    drop(bar);
    let (transfer, published) = pulled?;
    let report = Report {
        reference: args.reference.to_string(),
        name: name.map(|name| name.to_string()),
        displaced: published.displaced,
        transfer,
        seconds: begun.elapsed().as_secs_f64(),
    };
    output::print(format, &report, words)
}

fn words(report: &Report) -> String {
    let transfer = &report.transfer;
    let mut text = format!(
        "{}\nname    {}\nsize    {}, {} fetched in {:.1} s\nblobs   {}, {} were there\n",
        transfer.digest,
        report.name.as_deref().unwrap_or("<none>"),
        progress::size(transfer.bytes),
        progress::size(transfer.transferred_bytes),
        report.seconds,
        transfer.blobs,
        transfer.skipped_blobs,
    );
    text += &output::displaced(report.displaced);
    text
}
