//! `world verify`: can a world be restored?

use serde::Serialize;

use super::output::{self, Format};
use super::places::StoreArgs;
use super::progress::{self, Progress};
use crate::digest::Digest;
use crate::error::Result;
use crate::memory::PAGE_SIZE;
use crate::store::Reference;
use crate::world::artifact::{self, VerifyReport};

/// `world verify`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The world
    world: Reference,

    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    digest: Digest,
    #[serde(flatten)]
    read: VerifyReport,
}

pub(super) fn run(args: &Args, format: Format) -> Result<()> {
    let store = args.store.open_existing()?;
    let lease = store.lease()?;
    let digest = store.resolve_held(&args.world, &lease)?;
    let bar = Progress::of_bytes("verify", 0);
    let read = artifact::verify(&lease, &digest, &|pages| bar.add(pages * PAGE_SIZE as u64))?;
    drop(bar);
    output::print(format, &Report { digest, read }, |report| {
        format!(
            "{} is whole: {} in {} blobs, {} pages of memory, {} of CRIU's images\n",
            report.digest,
            progress::size(report.read.bytes),
            report.read.blobs,
            report.read.pages,
            report.read.images
        )
    })
}
