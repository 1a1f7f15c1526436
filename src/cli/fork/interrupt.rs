//! Ctrl-C: the first one has all undone, the second one ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Error, ErrorKind, IoContext, Result};

/// The exit status after the second one: 128 + SIGINT.
const AT_ONCE: i32 = 130;

/// Listens from its making on.
pub(super) struct Interrupt(Arc<AtomicU32>);

impl Interrupt {
    pub fn listen() -> Result<Interrupt> {
        let count = Arc::new(AtomicU32::new(0));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context(|| "listen to signals")?;
        let entered = runtime.enter();
        let mut interrupt = signal(SignalKind::interrupt()).context(|| "listen to SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context(|| "listen to SIGTERM")?;
        drop(entered);
        let counted = count.clone();
        std::thread::spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    if counted.fetch_add(1, Ordering::SeqCst) > 0 {
                        std::process::exit(AT_ONCE);
                    }
                    tracing::warn!("undoing the fork; once more to leave at once");
                }
            });
        });
        Ok(Interrupt(count))
    }

    pub fn came(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }

    /// [`ErrorKind::Aborted`] when it has come.
    pub fn check(&self) -> Result<()> {
        match self.came() {
            false => Ok(()),
            true => Err(Error::new(
                ErrorKind::Aborted,
                "interrupted: the fork was undone",
            )),
        }
    }
}
