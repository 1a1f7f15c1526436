//! `world completions` and `world man`: for shells and readers, made of the arguments' definitions.

use std::io::Write;
use std::path::PathBuf;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use crate::error::{IoContext, Result};

/// `world completions`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct CompletionArgs {
    /// For which shell
    shell: Shell,
}

/// `world man`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct ManArgs {
    /// Where to put the pages: world.1, world-checkpoint.1 and so on
    directory: PathBuf,
}

pub(super) fn completions(args: &CompletionArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "world", &mut script);
    std::io::stdout()
        .lock()
        .write_all(&script)
        .context(|| "write to stdout")
}

pub(super) fn man(args: &ManArgs) -> Result<()> {
    let folder = &args.directory;
    std::fs::create_dir_all(folder).context(|| format!("make {}", folder.display()))?;
    clap_mangen::generate_to(command_for_man(), folder)
        .context(|| format!("write manual pages into {}", folder.display()))
}

fn command_for_man() -> Command {
    let mut command = Cli::command();
    command.build();
    command
}
