//! `world rm`: names, and worlds with their last name.

use serde::Serialize;

use super::output::{self, Format};
use super::places::StoreArgs;
use crate::digest::Digest;
use crate::error::Result;
use crate::store::Reference;

/// `world rm`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The worlds: a name is taken from its world; with the last one, or by its digest, the
    /// world goes. What only it needed goes with the next `world gc`.
    #[arg(required = true)]
    worlds: Vec<Reference>,

    /// Remove a world by its digest although it has several names
    #[arg(short, long)]
    force: bool,

    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Debug, Serialize)]
struct Line {
    digest: Digest,
    names: Vec<String>,
    /// The world itself is gone, not only the name.
    gone: bool,
}

pub(super) fn run(args: &Args, format: Format) -> Result<()> {
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
