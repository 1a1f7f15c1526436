//! `containerd-shim-world-v1`: started by containerd, and by itself as a helper.

use std::process::ExitCode;

use worldshim::shim::{RUNTIME, WorldShim, helper};

fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|arg| arg == helper::ARGUMENT)
    {
        return ExitCode::from(helper::main());
    }
    // One thread: the shim waits most of the time, and forks only from here.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
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
