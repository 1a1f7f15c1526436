//! `world export`: a world of the store becomes one file.

use std::path::PathBuf;

use serde::Serialize;

use super::output::{self, Format};
use super::places::StoreArgs;
use super::progress::{self, Progress};
use crate::archive::{self, Compression, ExportRequest, Form};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Reference, WorldName};
use crate::world::artifact;

/// `world export`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The world
    world: Reference,

    /// The file to write; memory is in it, so only its owner may read it
    file: PathBuf,

    /// What to write
    #[arg(long = "as", value_enum, default_value_t = Form::Checkpoint, value_name = "FORM")]
    form: Form,

    /// How to compress a checkpoint archive [default: zstd]; what is in an OCI layout is compressed already
    #[arg(long, value_enum, value_name = "HOW")]
    compress: Option<Compression>,

    /// Replace the file if it is there
    #[arg(short, long)]
    force: bool,

    #[command(flatten)]
    store: StoreArgs,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Report {
    digest: Digest,
    file: PathBuf,
    /// Of the file.
    bytes: u64,
}

pub(super) fn run(args: &Args, format: Format) -> Result<()> {
    if args.form == Form::Oci && args.compress.is_some_and(|how| how != Compression::None) {
        let text = "--compress goes with --as checkpoint: what is in an OCI layout is compressed \
                    already";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    let store = args.store.open_existing()?;
    let lease = store.lease()?;
    let world = store.resolve_held(&args.world, &lease)?;
    let listed = store.list()?.into_iter().find(|it| it.digest == world);
    let names = listed.map(|listed| listed.names).unwrap_or_default();
    let name = name(&args.world, &names);
    let (artifact, manifest) = artifact::load(&store, &world)?;
    let bytes = match args.form {
        Form::Checkpoint => manifest.size(),
        Form::Oci => artifact.size(),
    };
    let bar = Progress::of_bytes("export", bytes);
    let exported = archive::export(&ExportRequest {
        lease: &lease,
        world,
        name: name.as_ref(),
        file: &args.file,
        form: args.form,
        compression: args.compress.unwrap_or(Compression::Zstd),
        force: args.force,
        progress: &|bytes| bar.add(bytes),
    })?;
    drop(bar);
    let report = Report {
        digest: world,
        file: args.file.clone(),
        bytes: exported.size,
    };
    output::print(format, &report, |report| {
        format!(
            "{}\nfile    {}\nsize    {}\n",
            report.digest,
            report.file.display(),
            progress::size(report.bytes)
        )
    })
}

/// The name that was asked for, or the world's first one.
fn name(asked: &Reference, names: &[String]) -> Option<WorldName> {
    let asked = match asked {
        Reference::Name(name) | Reference::NameOrPrefix(name, _) => Some(name),
        Reference::Digest(_) | Reference::Prefix(_) => None,
    };
    let has = |name: &WorldName| names.contains(&name.to_string());
    let first = || names.iter().find_map(|name| name.parse().ok());
    asked.filter(|name| has(name)).cloned().or_else(first)
}
