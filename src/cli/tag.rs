//! `world tag`: one more name for a world.

use serde::Serialize;

use super::output::{self, Format};
use super::places::StoreArgs;
use crate::digest::Digest;
use crate::error::Result;
use crate::store::{Reference, WorldName};

/// `world tag`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The world
    world: Reference,

    /// Its new name; a world that has it loses it, and stays
    #[arg(value_name = "NAME[:TAG]")]
    name: WorldName,

    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    digest: Digest,
    name: String,
    displaced: Option<Digest>,
}

pub(super) fn run(args: &Args, format: Format) -> Result<()> {
    let store = args.store.open_existing()?;
    let digest = store.resolve(&args.world)?;
    let report = Report {
        digest,
        name: args.name.to_string(),
        displaced: store.tag(&args.world, &args.name)?,
    };
    output::print(format, &report, |report| {
        format!("{}  {}\n", report.digest, report.name)
    })
}
