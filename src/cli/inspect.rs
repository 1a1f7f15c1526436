//! `world inspect`: what a world consists of.

use std::collections::BTreeMap;

use serde::Serialize;

use super::output::{self, Format};
use super::places::StoreArgs;
use super::progress;
use crate::digest::Digest;
use crate::error::Result;
use crate::store::{Reference, Store};
use crate::world::artifact::{self, Artifact, parent_of};
use crate::world::manifest::Manifest;

/// Worlds that follow one another are shown so far back.
const LINEAGE: usize = 100;

/// `world inspect`'s arguments.
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
    names: Vec<String>,
    annotations: BTreeMap<String, String>,
    /// The worlds that it follows, the nearest first, as far as they are in the store.
    lineage: Vec<Digest>,
    blobs: Vec<Blob>,
    bytes: u64,
    world: Manifest,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Blob {
    media_type: String,
    digest: Digest,
    size: u64,
}

pub(super) fn run(args: &Args, format: Format) -> Result<()> {
    let store = args.store.open_existing()?;
    let digest = store.resolve(&args.world)?;
    let (artifact, world) = artifact::load(&store, &digest)?;
    let listed = store.list()?;
    let names = listed.into_iter().find(|world| world.digest == digest);
    let report = Report {
        digest,
        names: names.map(|world| world.names).unwrap_or_default(),
        lineage: lineage(&store, &artifact),
        blobs: blobs(&artifact),
        bytes: artifact.size(),
        annotations: artifact.annotations,
        world,
    };
    output::print(format, &report, words)
}

fn lineage(store: &Store, artifact: &Artifact) -> Vec<Digest> {
    let mut lineage = Vec::new();
    let mut next = parent_of(&artifact.annotations);
    while let Some(digest) = next.filter(|digest| !lineage.contains(digest)) {
        lineage.push(digest);
        let parent = store
            .manifest(&digest)
            .and_then(|manifest| Artifact::of(&manifest));
        next = parent
            .ok()
            .and_then(|parent| parent_of(&parent.annotations));
        if lineage.len() == LINEAGE {
            break;
        }
    }
    lineage
}

fn blobs(artifact: &Artifact) -> Vec<Blob> {
    let config = (artifact::CONFIG, artifact.config);
    let all = std::iter::once(config).chain(artifact.layers());
    all.map(|(media_type, content)| Blob {
        media_type: media_type.to_owned(),
        digest: content.digest,
        size: content.size,
    })
    .collect()
}

fn words(report: &Report) -> String {
    let world = &report.world;
    let mut rows = vec![
        ["digest".to_owned(), report.digest.to_string()],
        ["names".to_owned(), report.names.join(", ")],
        [
            "container".to_owned(),
            format!("{} ({})", world.container.id, world.container.namespace),
        ],
        ["created".to_owned(), world.created.to_string()],
        [
            "frozen".to_owned(),
            progress::duration(world.times.frozen_ns),
        ],
        ["size".to_owned(), progress::size(report.bytes)],
        ["state".to_owned(), progress::size(world.size())],
    ];
    if let Some(image) = &world.image {
        let digest = image.digest.as_deref().unwrap_or("digest unknown");
        rows.push(["image".to_owned(), format!("{} ({digest})", image.name)]);
    }
    let host = &world.host;
    let criu = host.criu.as_deref().unwrap_or("unknown");
    rows.push([
        "host".to_owned(),
        format!("{}, Linux {}, CRIU {criu}", host.arch, host.kernel),
    ]);
    for parent in &report.lineage {
        rows.push(["follows".to_owned(), parent.to_string()]);
    }
    for redacted in &world.redacted {
        rows.push([
            "redacted".to_owned(),
            format!("{} in {}", redacted.name, redacted.place),
        ]);
    }
    let mut text = output::columns(&rows);
    text.push('\n');
    let blobs = report.blobs.iter().map(|blob| {
        [
            blob.digest.to_string()[7..19].to_owned(),
            progress::size(blob.size),
            blob.media_type.clone(),
        ]
    });
    text + &output::columns(&blobs.collect::<Vec<_>>())
}
