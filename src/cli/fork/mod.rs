//! `world fork`: many running containers out of one world, or out of one that runs.

mod interrupt;
mod memory;
mod plan;
mod siblings;
mod source;

use std::time::{Duration, Instant};

use serde::Serialize;
use time::OffsetDateTime;

use super::checkpoint::Manner;
use super::output::{self, Format};
use super::places::{ContainerdArgs, StoreArgs};
use super::progress;
use crate::containerd::committed::{self, Files, Held};
use crate::containerd::{ContainerdLease, Namespace};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::store::WorldName;
use crate::world::fork::{self, Notify};
use crate::world::rootfs::{self, DevicePolicy, Privileged};
use interrupt::Interrupt;
use plan::Plan;
use siblings::{Outcome, Phase};
use source::Source;

/// Most siblings of one fork.
const MOST: u32 = 4096;
/// containerd drops the lease of a fork that was killed after this.
const LEASE: Duration = Duration::from_secs(10 * 60);

/// What becomes of TCP connections to outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Tcp {
    /// Closed in all siblings.
    Close,
    /// Kept in one sibling, closed in all others.
    Heir,
}

/// `world fork`'s arguments.
#[derive(Debug, clap::Args)]
#[command(mut_arg("namespace", |arg| arg.short(None::<char>)))]
pub(super) struct Args {
    /// A world, or a running container, which is checkpointed for it and goes on
    source: String,

    /// How many siblings
    #[arg(short = 'n', long, default_value_t = 1, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST)))]
    count: u32,

    /// The siblings' ids: this, a hyphen, and a number from 0 [default: the container's id and
    /// the fork's]
    #[arg(long, value_name = "PREFIX")]
    name_prefix: Option<String>,

    /// Their hostnames; {id} and {index} stand for the sibling's own
    #[arg(long, value_name = "PATTERN", default_value = "{id}")]
    hostname: String,

    /// A variable for processes that are executed later; those that run keep what is in their memory
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,

    /// A label for all siblings
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,

    /// Leave them paused, before their first instruction
    #[arg(long)]
    paused: bool,

    /// End them after this time, such as 90s, 10m, 2h
    #[arg(long, value_parser = plan::duration)]
    ttl: Option<Duration>,

    /// Have all memory there before they run
    #[arg(long)]
    eager: bool,

    /// How their processes are told: signal:NAME or exec:/PATH ARGUMENTS [default: the
    /// annotation dev.worldshim.fork.notify of the container]
    #[arg(long, value_name = "HOW")]
    notify: Option<Notify>,

    /// What becomes of TCP connections to outside
    #[arg(long, value_enum, default_value_t = Tcp::Close)]
    tcp: Tcp,

    /// Which sibling keeps them, with --tcp heir
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    tcp_heir: u32,

    /// Where their output goes, such as file:///var/log/x.log [default: nowhere]
    #[arg(long, value_name = "URI")]
    log_uri: Option<String>,

    /// Give them what gives power over this host, if the world wants it
    #[arg(long)]
    trust: bool,

    /// SOURCE is a container, also where a world is called like it
    #[arg(long)]
    container: bool,

    /// What to call the world that is made of a running container [default: it has no name]
    #[arg(long, value_name = "NAME[:TAG]")]
    name: Option<WorldName>,

    #[command(flatten)]
    manner: Manner,

    #[command(flatten)]
    store: StoreArgs,

    #[command(flatten)]
    containerd: ContainerdArgs,
}

/// How siblings get their memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Memory {
    /// All of it before they run.
    Eager,
    /// What they touch, when they touch it.
    Lazy,
}

impl Args {
    /// The one place where it is decided.
    fn memory(&self) -> Memory {
        match self.eager {
            true => Memory::Eager,
            false => Memory::Lazy,
        }
    }
}

/// Where the siblings' files are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
enum FilesReport {
    /// In one snapshot that all stand on.
    Shared { snapshot: String, made: bool },
    /// In each sibling's own writable layer.
    Own,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Report {
    fork: String,
    world: Digest,
    memory: Memory,
    files: FilesReport,
    /// How long a running container stood still for it; null for a stored world.
    frozen_ns: Option<u64>,
    variables_left_out: Vec<String>,
    expires: Option<String>,
    /// What was done once for all.
    phases: Vec<Phase>,
    siblings: Vec<Outcome>,
    failed: usize,
    total_ns: u64,
}

pub(super) fn run(args: &Args, format: Format) -> Result<()> {
    let begun = Instant::now();
    let mut phases = Vec::new();
    let interrupt = Interrupt::listen()?;
    let store = args.store.open()?;
    let lease = store.lease()?;
    let containerd = args.containerd.connect()?;
    let namespace = containerd.namespace(&args.containerd.namespace)?;
    let fork = fork::new_id()?;
    let source = Source::of(args, &lease, &namespace, &mut phases)?;
    let expires = args
        .ttl
        .map(|ttl| whole_seconds(OffsetDateTime::now_utc() + ttl));
    let plan = Plan::new(args, &source, &lease, &namespace, &fork, expires)?;
    source.stage(args.memory(), &lease, &mut phases)?;
    let timing = Instant::now();
    let server = match args.memory() {
        Memory::Eager => None,
        Memory::Lazy => Some(memory::serve(&store, &source.digest, &fork)?),
    };
    phases.push(Phase::since("memory", timing));
    interrupt.check()?;
    let held = namespace.lease(&committed::lease_of(&fork), LEASE)?;
    let timing = Instant::now();
    let files = shared_files(&source, &plan, &fork, &namespace, &held)?;
    phases.push(Phase::since("files", timing));
    let parent = files.as_ref().map_or(&*plan.chain_id, |files| &*files.name);
    let siblings = siblings::start(&plan, parent, &source.world(), &namespace, &interrupt);
    if interrupt.came() {
        siblings::remove_all(&plan, &siblings, &namespace);
    }
    interrupt.check()?;
    let report = Report {
        world: source.digest,
        memory: args.memory(),
        files: match &files {
            Some(files) => FilesReport::Shared {
                snapshot: files.name.clone(),
                made: files.made,
            },
            None => FilesReport::Own,
        },
        frozen_ns: source.frozen_ns,
        variables_left_out: plan.variables_left_out.clone(),
        expires: expires.map(fork::in_text),
        failed: siblings.iter().filter(|one| one.error.is_some()).count(),
        fork,
        phases,
        siblings,
        total_ns: nanos(begun.elapsed()),
    };
    drop((files, held, server));
    source.remove()?;
    output::print(format, &report, words)?;
    told(&report)
}

/// The snapshot that all siblings stand on, where there can be one.
fn shared_files<'a>(
    source: &Source,
    plan: &Plan,
    fork: &str,
    namespace: &'a Namespace<'_>,
    lease: &ContainerdLease<'_>,
) -> Result<Option<Held<'a>>> {
    let Some(file) = source.rootfs()? else {
        return Ok(None);
    };
    let rules = plan.device_rules();
    namespace.committed(
        &Files {
            fork,
            snapshotter: &plan.snapshotter,
            chain_id: &plan.chain_id,
            digest: file.sha256,
            open: &|| source.open(&file),
            policy: &rootfs::Policy {
                devices: DevicePolicy::from_spec(&rules),
                privileged: Privileged::Keep,
            },
        },
        lease,
    )
}

/// An error where a sibling failed; what it is was printed.
fn told(report: &Report) -> Result<()> {
    let Some(first) = report.siblings.iter().find_map(|one| one.error.as_ref()) else {
        return Ok(());
    };
    Err(Error::new(
        first.kind,
        format!(
            "{} of {} siblings failed, and nothing of them is left; the first: {}",
            report.failed,
            report.siblings.len(),
            first.message
        ),
    ))
}

fn words(report: &Report) -> String {
    let mut text = format!("fork    {}\nworld   {}\n", report.fork, report.world);
    if let Some(frozen) = report.frozen_ns {
        text += &format!("frozen  {}\n", progress::duration(frozen));
    }
    if let Some(expires) = &report.expires {
        text += &format!("until   {expires}\n");
    }
    text += &format!("time    {}\n\n", progress::duration(report.total_ns));
    let rows: Vec<[String; 4]> = report.siblings.iter().map(row).collect();
    text += &output::columns(&rows);
    match &report.variables_left_out[..] {
        [] => text,
        names => {
            text + &format!(
                "without {}: redacted; for processes executed later, give them with --env\n",
                names.join(", ")
            )
        }
    }
}

fn row(sibling: &Outcome) -> [String; 4] {
    let time = progress::duration(sibling.phases.iter().map(|phase| phase.ns).sum());
    match (&sibling.error, sibling.pid) {
        (Some(error), _) => [
            sibling.id.clone(),
            "failed".to_owned(),
            time,
            error.message.clone(),
        ],
        (None, pid) => [
            sibling.id.clone(),
            pid.map(|pid| pid.to_string()).unwrap_or_default(),
            time,
            sibling.hostname.clone(),
        ],
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The next whole second, which is how exactly a sibling's end is timed.
fn whole_seconds(time: OffsetDateTime) -> OffsetDateTime {
    let begun = time.unix_timestamp_nanos().div_euclid(1_000_000_000) + 1;
    OffsetDateTime::from_unix_timestamp_nanos(begun * 1_000_000_000).unwrap_or(time)
}

/// What a fork may not ask for.
fn nonsense(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}
