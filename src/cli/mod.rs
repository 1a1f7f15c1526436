//! The `world` command: one file per verb.
//!
//! Data goes to stdout, in words or as one JSON document; progress, logs and
//! errors go to stderr. The exit status is 0, or that of the error's kind in
//! [`ErrorKind::codes`](crate::ErrorKind::codes); a usage error is 2.

mod checkpoint;
mod detach;
mod diff;
mod doctor;
mod export;
mod fork;
mod fsck;
mod gc;
mod import;
mod inspect;
mod ls;
mod output;
mod page_server;
mod places;
mod progress;
mod pull;
mod push;
mod restore;
mod rm;
mod rollback;
mod shell;
mod tag;
mod verify;

use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

use crate::error::Result;
pub use output::Format;

/// The variable that overrides `-v`, like `info,worldshim::criu=debug`.
const LOG_VARIABLE: &str = "WORLD_LOG";

/// Freeze running containers into worlds, and bring them back.
#[derive(Debug, Parser)]
#[command(name = "world", version, propagate_version = true)]
pub struct Cli {
    /// How to print what was asked for.
    #[arg(long, global = true, value_enum, default_value_t = Format::Human)]
    format: Format,

    /// Log more to stderr (-v: info, -vv: debug, -vvv: trace). WORLD_LOG overrides it.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Freeze a running container into a world of the store
    Checkpoint(checkpoint::Args),
    /// Bring a world back as a running container
    Restore(restore::Args),
    /// Take a container back to a world, under its own id
    Rollback(rollback::Args),
    /// Make many running containers out of one world, or out of one that runs
    Fork(Box<fork::Args>),
    /// Fetch all memory of a sibling of a fork, which then needs nothing of the others
    Detach(detach::Args),
    /// List the worlds of the store
    Ls(ls::Args),
    /// Show what a world consists of
    Inspect(inspect::Args),
    /// Show what differs between two worlds
    Diff(diff::Args),
    /// Give a world one more name
    Tag(tag::Args),
    /// Remove worlds, or names of them
    Rm(rm::Args),
    /// Free what no world needs
    Gc(gc::Args),
    /// Look for damage in the store
    Fsck(fsck::Args),
    /// Read a world in full, to see that it can be restored
    Verify(verify::Args),
    /// Bring a world to a registry
    Push(push::Args),
    /// Fetch a world from a registry
    Pull(pull::Args),
    /// Write a world to a file: a checkpoint archive or an OCI layout
    Export(export::Args),
    /// Take a world from a file, a world directory, or an image by `ctr container checkpoint`
    Import(import::Args),
    /// Check whether this host can run, freeze and restore containers
    Doctor(doctor::Args),
    /// Serve the memory of a world to the siblings forked of it
    #[command(hide = true)]
    PageServer(page_server::Args),
    /// Print completions for a shell
    Completions(shell::CompletionArgs),
    /// Write the manual pages
    Man(shell::ManArgs),
}

impl Cli {
    /// Which log lines go to stderr: the libraries' from one level up only.
    pub fn log_filter(&self) -> Targets {
        let (ours, theirs) = match self.verbose {
            0 => (LevelFilter::WARN, LevelFilter::ERROR),
            1 => (LevelFilter::INFO, LevelFilter::WARN),
            2 => (LevelFilter::DEBUG, LevelFilter::INFO),
            _ => (LevelFilter::TRACE, LevelFilter::TRACE),
        };
        std::env::var(LOG_VARIABLE)
            .ok()
            .and_then(|filter| filter.parse().ok())
            .unwrap_or_else(|| {
                let quiet = Targets::new().with_default(theirs);
                quiet.with_target("world", ours)
            })
    }
}

/// Runs the verb. The exit status of one that did what it should.
pub fn run(cli: Cli) -> Result<ExitCode> {
    let ran = match cli.verb {
        // Its status may be the answer.
        Verb::Diff(args) => return diff::run(&args, cli.format),
        Verb::Checkpoint(args) => checkpoint::run(&args, cli.format),
        Verb::Restore(args) => restore::run(&args, cli.format),
        Verb::Rollback(args) => rollback::run(&args, cli.format),
        Verb::Fork(args) => fork::run(&args, cli.format),
        Verb::Detach(args) => detach::run(&args, cli.format),
        Verb::Ls(args) => ls::run(&args, cli.format),
        Verb::Inspect(args) => inspect::run(&args, cli.format),
        Verb::Tag(args) => tag::run(&args, cli.format),
        Verb::Rm(args) => rm::run(&args, cli.format),
        Verb::Gc(args) => gc::run(&args, cli.format),
        Verb::Fsck(args) => fsck::run(&args, cli.format),
        Verb::Verify(args) => verify::run(&args, cli.format),
        Verb::Push(args) => push::run(&args, cli.format),
        Verb::Pull(args) => pull::run(&args, cli.format),
        Verb::Export(args) => export::run(&args, cli.format),
        Verb::Import(args) => import::run(&args, cli.format),
        Verb::Doctor(args) => doctor::run(&args, cli.format),
        Verb::PageServer(args) => page_server::run(&args),
        Verb::Completions(args) => shell::completions(&args),
        Verb::Man(args) => shell::man(&args),
    };
    ran.map(|()| ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
