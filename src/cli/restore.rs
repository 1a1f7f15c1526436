//! `world restore`: a world of the store becomes a running container.

pub(super) mod image;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use oci_spec::runtime::Spec;
use serde::Serialize;

use image::Image;

use super::output::{self, Format};
use super::places::{ContainerdArgs, StoreArgs};
use super::progress::{self, Progress};
use crate::containerd::{Container, Namespace, Streams};
use crate::criu::Criu;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::memory::PAGE_SIZE;
use crate::store::{Lease, Reference};
use crate::world::artifact::{self, Artifact};
use crate::world::config::Config;
use crate::world::host::HostFacts;
use crate::world::manifest::{BaseLayers, ImageIdentity, Manifest};
use crate::world::policy::PREFIX;
use crate::world::publish::PublishedPort;
use crate::world::trust::{self, WORLD_LABEL, Wishes};
use crate::world::{spec, verify};

/// The largest `spec.json`, in bytes.
pub(super) const SPEC: usize = 16 << 20;

/// `world restore`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The world
    world: Reference,

    /// Id of the new container [default: the old one's]
    #[arg(long)]
    id: Option<String>,

    /// Only print what would be done
    #[arg(long)]
    dry_run: bool,

    /// Another hostname than the old one
    #[arg(long)]
    hostname: Option<String>,

    /// A variable for processes that are executed later; those that run keep what is in their memory
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,

    /// A label for the container
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,

    /// Where its output goes, such as file:///var/log/x.log or binary:///usr/bin/logger [default: nowhere]
    #[arg(long, value_name = "URI")]
    log_uri: Option<String>,

    /// A port of the host that leads to one of the container's: [IP:]HOST:CONTAINER
    #[arg(short, long, value_name = "PORTS")]
    publish: Vec<PublishedPort>,

    /// Keep TCP connections to outside, instead of closing them
    #[arg(long)]
    tcp_established: bool,

    /// Give it what gives power over this host, if the world wants it: host paths, devices,
    /// capabilities, namespaces
    #[arg(long)]
    trust: bool,

    #[command(flatten)]
    store: StoreArgs,

    #[command(flatten)]
    containerd: ContainerdArgs,
}

/// What is to be done.
#[derive(Debug, Serialize)]
struct Plan {
    world: Digest,
    id: String,
    image: Option<ImageIdentity>,
    /// containerd has to fetch it first.
    pull: Option<String>,
    /// containerd gets it first, from the world.
    import: Option<String>,
    snapshotter: String,
    parent_snapshot: String,
    /// Of the world directory, which is made for the restore and removed after it.
    bytes: u64,
    /// Names of variables whose values are not in the world.
    variables_left_out: Vec<String>,
    /// What differs here without being known to do harm.
    warnings: Vec<String>,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Report {
    id: String,
    pid: u32,
    world: Digest,
    variables_left_out: Vec<String>,
    /// Until the world directory was there.
    unpack_ns: u64,
    total_ns: u64,
}

pub(super) fn run(args: &Args, format: Format) -> Result<()> {
    let begun = Instant::now();
    let store = args.store.open_existing()?;
    let lease = store.lease()?;
    let digest = store.resolve_held(&args.world, &lease)?;
    let (artifact, manifest) = artifact::load(&store, &digest)?;
    let containerd = args.containerd.connect()?;
    let namespace = containerd.namespace(&args.containerd.namespace)?;
    let (plan, container, image) = plan(args, &lease, digest, &artifact, &manifest, &namespace)?;
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    if args.dry_run {
        return output::print(format, &plan, plan_in_words);
    }
    if let Some(base) = &manifest.base {
        image.provide(&namespace, &store, &artifact, base, &plan.parent_snapshot)?;
    }
    let workspace = store.workspace("restore")?;
    let world = workspace.path().join("world");
    let bar = Progress::of_bytes("unpack", manifest.size());
    artifact::unpack(&lease, &digest, &world, &|pages| {
        bar.add(pages * PAGE_SIZE as u64);
    })?;
    drop(bar);
    let unpacked = begun.elapsed();
    let pid = bring_back(
        &namespace,
        &container,
        &plan,
        &world,
        &Streams::to_log(args.log_uri.as_deref()),
    )?;
    workspace.remove()?;
    let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let report = Report {
        id: container.id,
        pid,
        world: digest,
        variables_left_out: plan.variables_left_out,
        unpack_ns: nanos(unpacked),
        total_ns: nanos(begun.elapsed()),
    };
    output::print(format, &report, report_in_words)
}

fn plan_in_words(plan: &Plan) -> String {
    let mut text = format!("world     {}\ncontainer {}\n", plan.world, plan.id);
    if let Some(image) = &plan.image {
        text += &format!("image     {}\n", image.name);
    }
    if let Some(reference) = &plan.pull {
        text += &format!("pull      {reference}\n");
    }
    if let Some(reference) = &plan.import {
        text += &format!("import    {reference}, which the world has\n");
    }
    text += &format!(
        "snapshot  on {} ({})\n",
        plan.parent_snapshot, plan.snapshotter
    );
    text += &format!("unpack    {}\n", progress::size(plan.bytes));
    text + &left_out_in_words(&plan.variables_left_out)
}

fn report_in_words(report: &Report) -> String {
    format!(
        "{}\npid     {}\ntime    {}, {} of it to unpack\n{}",
        report.id,
        report.pid,
        progress::duration(report.total_ns),
        progress::duration(report.unpack_ns),
        left_out_in_words(&report.variables_left_out)
    )
}

fn left_out_in_words(names: &[String]) -> String {
    match names {
        [] => String::new(),
        names => format!(
            "without {}: redacted; for processes executed later, give them with --env\n",
            names.join(", ")
        ),
    }
}

fn plan(
    args: &Args,
    lease: &Lease,
    digest: Digest,
    artifact: &Artifact,
    manifest: &Manifest,
    namespace: &Namespace,
) -> Result<(Plan, Container, Image)> {
    let id = args
        .id
        .clone()
        .unwrap_or_else(|| manifest.container.id.clone());
    let warnings = suits(manifest)?;
    let (base, parent) = base(manifest)?;
    if !is_free(namespace, &id)? {
        let text = format!("container {id} is there already: remove it, or give another --id");
        return Err(Error::new(ErrorKind::AlreadyExists, text));
    }
    let old = lease.store().read(&artifact.spec.digest, SPEC)?;
    let wishes = Wishes {
        id: id.clone(),
        namespace: namespace.name().to_owned(),
        hostname: args.hostname.clone(),
        env: args.env.clone(),
        tcp_established: args.tcp_established,
        annotations: Vec::new(),
        trust: args.trust,
    };
    let (mut spec, variables_left_out) = trust::spec_for(&spec::parse(&old)?, &wishes)?;
    publish(&mut spec, &args.publish);
    let image = image::find(namespace, base, &parent, artifact, manifest)?;
    let is_from = |source| (image.source == source).then(|| image.name.clone());
    let container = Container {
        id: id.clone(),
        labels: labels(&args.label, manifest, digest)?,
        image: image.name.clone(),
        runtime: manifest.container.runtime.clone(),
        snapshotter: base.snapshotter.clone(),
        snapshot_key: id.clone(),
        created: None,
        spec,
    };
    let plan = Plan {
        world: digest,
        id,
        image: manifest.image.clone(),
        pull: is_from(image::Source::Registry),
        import: is_from(image::Source::Carried),
        snapshotter: base.snapshotter.clone(),
        parent_snapshot: parent,
        bytes: manifest.size(),
        variables_left_out,
        warnings,
    };
    Ok((plan, container, image))
}

/// The layers that the world stands on, and their chain id.
pub(super) fn base(manifest: &Manifest) -> Result<(&BaseLayers, String)> {
    let base = manifest.base.as_ref();
    base.and_then(|base| Some((base, base.chain_id.clone()?)))
        .ok_or_else(|| {
            Error::new(
                ErrorKind::ForeignWorld,
                "the world does not say which image's layers it stands on: its container's root \
                 was no snapshot of an image",
            )
        })
}

/// Whether the world can run on this host; what it may mind.
pub(super) fn suits(manifest: &Manifest) -> Result<Vec<String>> {
    let criu = Criu::find(Some(&Config::load()?.criu.path))?;
    let version = criu.require_version()?.to_string();
    verify::suits(&manifest.host, &HostFacts::gather(Some(&version))?)
}

pub(super) fn is_free(namespace: &Namespace, id: &str) -> Result<bool> {
    match namespace.container(id) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        found => found.map(|_| false),
    }
}

/// The old container's labels but those that say how it came about, and those that are given.
pub(super) fn labels(
    given: &[String],
    manifest: &Manifest,
    digest: Digest,
) -> Result<BTreeMap<String, String>> {
    let mut labels = manifest.container.labels.clone();
    labels.retain(|key, value| {
        !key.starts_with(PREFIX) && !crate::world::fingerprint::is_marker(value)
    });
    for label in given {
        let Some((key, value)) = label.split_once('=') else {
            let text = format!("label {label:?} is not KEY=VALUE");
            return Err(Error::new(ErrorKind::InvalidInput, text));
        };
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels.insert(WORLD_LABEL.to_owned(), digest.to_string());
    Ok(labels)
}

/// The shim publishes what an annotation says.
fn publish(spec: &mut Spec, ports: &[PublishedPort]) {
    if !ports.is_empty() {
        let ports: Vec<String> = ports.iter().map(PublishedPort::to_string).collect();
        let mut annotations = spec.annotations().clone().unwrap_or_default();
        annotations.insert(format!("{PREFIX}publish"), ports.join(","));
        spec.set_annotations(Some(annotations));
    }
}

/// Makes the container; after a failure nothing of it stays.
fn bring_back(
    namespace: &Namespace,
    container: &Container,
    plan: &Plan,
    world: &Path,
    streams: &Streams,
) -> Result<u32> {
    let _waiting = Progress::waiting("restore");
    namespace.create_container(container)?;
    let begin = || {
        let (snapshotter, key) = (&container.snapshotter, &container.snapshot_key);
        namespace.prepare_snapshot(snapshotter, key, &plan.parent_snapshot)?;
        namespace.create_task(container, world, streams)?;
        namespace.start_task(&container.id)
    };
    begin().inspect_err(|_| remove(namespace, container))
}

/// As much as goes: the error that led here counts.
pub(super) fn remove(namespace: &Namespace, container: &Container) {
    let id = &container.id;
    let removals = [
        namespace.kill_task(id),
        namespace.delete_task(id),
        namespace.remove_snapshot(&container.snapshotter, &container.snapshot_key),
        namespace.delete_container(id),
    ];
    for error in removals.into_iter().filter_map(Result::err) {
        tracing::debug!("after a failed restore: {error}");
    }
}
