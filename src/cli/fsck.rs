//! `world fsck`: is the store as it must be?

use serde::Serialize;

use super::output::{self, Format};
use super::places::StoreArgs;
use super::progress::{self, Progress};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Finding, Report, Store};

/// `world fsck`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Set damaged blobs aside, so that what needs them can be pulled or imported again
    #[arg(long)]
    repair: bool,

    #[command(flatten)]
    store: StoreArgs,
}

/// What it tells.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    #[serde(flatten)]
    report: Report,
    /// With `--repair`.
    set_aside: Vec<Digest>,
}

pub(super) fn run(args: &Args, format: Format) -> Result<()> {
    let bar = Progress::of_bytes("read", 0);
    let report = Store::fsck(args.store.path(), &|bytes| bar.add(bytes))?;
    drop(bar);
    let set_aside = match args.repair {
        true => repair(args, &report)?,
        false => Vec::new(),
    };
    let told = Told { report, set_aside };
    output::print(format, &told, words)?;
    match told.report.is_clean() {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::CorruptWorld,
            "the store is damaged: see above",
        )),
    }
}

fn repair(args: &Args, report: &Report) -> Result<Vec<Digest>> {
    let store = args.store.open_existing()?;
    let mut set_aside = Vec::new();
    for finding in &report.findings {
        if let Finding::Blob { digest, .. } = finding
            && store.set_aside(digest)?
        {
            set_aside.push(*digest);
        }
    }
    Ok(set_aside)
}

fn words(told: &Told) -> String {
    let report = &told.report;
    let mut text = String::new();
    for finding in &report.findings {
        text += &format!("{finding}\n");
    }
    for digest in &told.set_aside {
        text += &format!("set aside: {digest}\n");
    }
    text + &format!(
        "{} worlds, {} in {} blobs read\n",
        report.worlds,
        progress::size(report.bytes),
        report.blobs
    )
}
