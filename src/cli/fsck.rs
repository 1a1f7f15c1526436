//! `world fsck`: is the store as it must be?

use super::output::{self, Format};
use super::places::StoreArgs;
use super::progress::{self, Progress};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Report, Store};

/// `world fsck`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) fn run(args: &Args, format: Format) -> Result<()> {
    let bar = Progress::of_bytes("read", 0);
    let report = Store::fsck(args.store.path(), &|bytes| bar.add(bytes))?;
    drop(bar);
    output::print(format, &report, words)?;
    match report.is_clean() {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::CorruptWorld,
            "the store is damaged: see above",
        )),
    }
}

fn words(report: &Report) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        text += &format!("{finding}\n");
    }
    text + &format!(
        "{} worlds, {} in {} blobs read\n",
        report.worlds,
        progress::size(report.bytes),
        report.blobs
    )
}
