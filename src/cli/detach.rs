//! `world detach`: a sibling of a fork gets all of its memory, and needs no page server any more.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::output::{self, Format};
use super::places::ContainerdArgs;
use super::progress::{self, Progress};
use crate::error::{Error, ErrorKind, Result};
use crate::lazy::{self, daemon, line};
use crate::world::fork;

/// How often the page server is asked whether it is done.
const PAUSE: Duration = Duration::from_millis(50);

/// `world detach`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The container, a sibling of a fork
    container: String,

    /// Only ask for it; the memory is fetched while the container goes on
    #[arg(long)]
    no_wait: bool,

    #[command(flatten)]
    containerd: ContainerdArgs,
}

#[derive(Debug, Serialize)]
struct Report {
    id: String,
    /// All of its memory is its own.
    independent: bool,
    total_ns: u64,
}

pub(super) fn run(args: &Args, format: Format) -> Result<()> {
    let begun = Instant::now();
    let containerd = args.containerd.connect()?;
    let namespace = containerd.namespace(&args.containerd.namespace)?;
    let container = namespace.container(&args.container)?;
    let Some((server, fork)) = fork::page_server(&container.spec)? else {
        let text = format!("container {} was made with all its memory", container.id);
        return Err(Error::new(ErrorKind::WrongState, text));
    };
    let socket = daemon::socket_of(&server);
    let sibling = lazy::sibling_name(namespace.name(), &container.id, &fork);
    let _waiting = Progress::waiting("fetch memory");
    let independent = loop {
        match line::detach(&socket, &sibling) {
            Ok(()) if args.no_wait => break false,
            Ok(()) => std::thread::sleep(PAUSE),
            // It depends on the server no more, whose death it would not have outlived.
            Err(error) if error.kind() == ErrorKind::NotFound => break true,
            Err(error) => return Err(error),
        }
    };
    let report = Report {
        id: container.id,
        independent,
        total_ns: u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX),
    };
    output::print(format, &report, |report| match report.independent {
        true => format!(
            "{} has all of its memory, after {}\n",
            report.id,
            progress::duration(report.total_ns)
        ),
        false => format!("{} is getting its memory\n", report.id),
    })
}
