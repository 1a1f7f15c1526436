//! `world ls`: which worlds there are.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::output::{self, Format};
use super::places::StoreArgs;
use super::progress;
use crate::digest::Digest;
use crate::error::Result;
use crate::store::World;
use crate::world::artifact::{ARTIFACT_TYPE, parent_of};

/// `world ls`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only print digests
    #[arg(short, long)]
    quiet: bool,

    /// Worlds below those that they follow
    #[arg(long)]
    tree: bool,

    #[command(flatten)]
    store: StoreArgs,
}

/// One line.
#[derive(Debug, Serialize)]
struct Line {
    digest: Digest,
    names: Vec<String>,
    container: Option<String>,
    image: Option<String>,
    created: Option<String>,
    parent: Option<Digest>,
    /// Bytes that only this world needs; `null` where it cannot be read.
    own_bytes: Option<u64>,
    /// Bytes that other worlds need too.
    shared_bytes: Option<u64>,
}

pub(super) fn run(args: &Args, format: Format) -> Result<()> {
    let store = args.store.open_existing()?;
    let worlds = store.list()?.into_iter().filter(is_world);
    let lines: Vec<Line> = worlds.map(line).collect();
    for path in store.rescued()? {
        tracing::warn!(
            "{} may be the only copy of a world: `world import` takes it",
            path.display()
        );
    }
    output::print(format, &lines, |lines| match (args.quiet, args.tree) {
        (true, _) => lines
            .iter()
            .map(|line| format!("{}\n", line.digest))
            .collect(),
        (false, false) => table(lines.iter().map(|line| (0, line))),
        (false, true) => table(as_tree(lines).into_iter()),
    })
}

fn is_world(world: &World) -> bool {
    world.artifact_type.as_deref() == Some(ARTIFACT_TYPE)
}

fn line(world: World) -> Line {
    let said = |key: &str| world.annotations.get(key).cloned();
    Line {
        container: said("org.criu.checkpoint.container.name"),
        image: said("org.opencontainers.image.base.name"),
        created: said("org.opencontainers.image.created"),
        parent: parent_of(&world.annotations),
        own_bytes: world.sizes.map(|sizes| sizes.own),
        shared_bytes: world.sizes.map(|sizes| sizes.shared),
        digest: world.digest,
        names: world.names,
    }
}

/// Each line with its depth, children after their parent.
fn as_tree(lines: &[Line]) -> Vec<(usize, &Line)> {
    let known: BTreeSet<Digest> = lines.iter().map(|line| line.digest).collect();
    let mut children: BTreeMap<Option<Digest>, Vec<&Line>> = BTreeMap::new();
    for line in lines {
        let parent = line.parent.filter(|parent| known.contains(parent));
        children.entry(parent).or_default().push(line);
    }
    let mut ordered = Vec::with_capacity(lines.len());
    let mut todo: Vec<(usize, &Line)> = Vec::new();
    let below = |depth, digest| {
        let children: &[&Line] = children.get(&digest).map_or(&[], Vec::as_slice);
        children.iter().rev().map(move |child| (depth, *child))
    };
    todo.extend(below(0, None));
    while let Some((depth, line)) = todo.pop() {
        ordered.push((depth, line));
        todo.extend(below(depth + 1, Some(line.digest)));
    }
    ordered
}

fn table<'a>(lines: impl Iterator<Item = (usize, &'a Line)>) -> String {
    let mut rows = vec![
        [
            "NAME",
            "DIGEST",
            "CREATED",
            "OWN",
            "SHARED",
            "CONTAINER",
            "IMAGE",
        ]
        .map(str::to_owned),
    ];
    for (depth, line) in lines {
        let names = match line.names.join(", ") {
            names if names.is_empty() => "<none>".to_owned(),
            names => names,
        };
        let bytes = |bytes: Option<u64>| bytes.map_or("damaged".to_owned(), progress::size);
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        rows.push([
            format!("{}{names}", "  ".repeat(depth)),
            line.digest.to_string()[7..19].to_owned(),
            text(&line.created).chars().take(19).collect(),
            bytes(line.own_bytes),
            bytes(line.shared_bytes),
            text(&line.container),
            text(&line.image),
        ]);
    }
    output::columns(&rows)
}
