//! `world push`: a world of the store goes to a registry.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::output::{self, Format};
use super::places::{RegistryArgs, StoreArgs};
use super::progress::{self, Progress};
use crate::error::Result;
use crate::registry::{Remote, RemoteReference, Transfer};
use crate::store::Reference;
use crate::world::artifact;

/// `world push`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The world
    world: Reference,

    /// Where it goes: HOST[:PORT]/REPOSITORY[:TAG]
    #[arg(value_name = "REF")]
    reference: RemoteReference,

    #[command(flatten)]
    registry: RegistryArgs,

    #[command(flatten)]
    store: StoreArgs,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Report {
    reference: String,
    #[serde(flatten)]
    transfer: Transfer,
    seconds: f64,
}

pub(super) fn run(args: &Args, format: Format) -> Result<()> {
    let begun = Instant::now();
    let store = args.store.open_existing()?;
    let lease = store.lease()?;
    let digest = store.resolve_held(&args.world, &lease)?;
    let (artifact, _) = artifact::load(&store, &digest)?;
    let remote = Remote::for_push(&args.reference, &args.registry.access())?;
    let bar = Arc::new(Progress::of_bytes("push", artifact.size()));
    let transfer = remote.push(&lease, &digest, &progress::watch(&bar))?;
    drop(bar);
    let report = Report {
        reference: args.reference.to_string(),
        transfer,
        seconds: begun.elapsed().as_secs_f64(),
    };
    output::print(format, &report, words)
}

fn words(report: &Report) -> String {
    let transfer = &report.transfer;
    format!(
        "{}\nto      {}\nsize    {}, {} sent in {:.1} s\nblobs   {}, {} were there\n",
        transfer.digest,
        report.reference,
        progress::size(transfer.bytes),
        progress::size(transfer.transferred_bytes),
        report.seconds,
        transfer.blobs,
        transfer.skipped_blobs,
    )
}
