//! `containerd-shim-world-v1`: started by containerd, and by itself as a helper.

use std::process::ExitCode;
use std::time::Duration;

use worldshim::runtime::{HOLDER_ARGUMENT, hold_namespace};
use worldshim::shim::{RUNTIME, WorldShim, helper};

fn main() -> ExitCode {
    let first = std::env::args_os().nth(1).unwrap_or_default();
    if first == helper::ARGUMENT {
        return ExitCode::from(helper::main());
    }
    if first == HOLDER_ARGUMENT {
        hold_namespace();
        return ExitCode::SUCCESS;
    }
    if std::env::args()
        .skip(1)
        .any(|arg| ["-v", "-version", "--version"].contains(&arg.as_str()))
    {
        println!("containerd-shim-world-v1:");
        println!("  Version:  {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    // One thread: the shim waits most of the time, and forks only from here.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // What blocks is rare and short: its threads need not wait for more.
        .thread_keep_alive(Duration::from_millis(100))
        .max_blocking_threads(4)
        .build();
    match runtime {
        Ok(runtime) => {
            // Ours reaps; see `shim::reaper`.
            let config = containerd_shim::Config {
                no_reaper: true,
                ..Default::default()
            };
            runtime.block_on(containerd_shim::asynchronous::run::<WorldShim>(
                RUNTIME,
                Some(config),
            ));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{RUNTIME}: start the runtime: {error}");
            ExitCode::FAILURE
        }
    }
}
