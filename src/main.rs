//! The `world` command: parse, log, run, and turn a failure into an exit status.

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use worldshim::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::registry()
        .with(cli.log_filter())
        .with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr))
        .init();
    match cli::run(cli) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("world: {error}");
            ExitCode::from(error.kind().codes().exit)
        }
    }
}
