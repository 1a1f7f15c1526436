//! `world gc`: the store without what nobody needs.

use super::output::{self, Format};
use super::places::StoreArgs;
use super::progress;
use crate::error::Result;
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
}

pub(super) fn run(args: &Args, format: Format) -> Result<()> {
    let swept = args.store.open_existing()?.gc(&GcOptions {
        dry_run: args.dry_run,
        drop_untagged: args.untagged,
        ..GcOptions::default()
    })?;
    output::print(format, &swept, |swept| words(swept, args.dry_run))
}

fn words(swept: &Swept, dry_run: bool) -> String {
    let verb = match dry_run {
        true => "would remove",
        false => "removed",
    };
    let mut text = String::new();
    for world in &swept.worlds {
        text += &format!("{verb} world {world}\n");
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
