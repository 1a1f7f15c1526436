//! What libcontainer says of a failure.
//!
//! Its errors say little ("failed to prepare rootfs"); what went wrong is in
//! its log, which for the most part is written by the processes that it forks.
//! They all write to one file in memory.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

use rustix::fs::{MemfdFlags, memfd_create};
use tracing::Level;

/// More than one line ever is.
const MOST_BYTES: usize = 2048;

static FILE: OnceLock<Arc<File>> = OnceLock::new();

/// Starts listening. To be called once, in a helper.
pub fn listen() {
    let Ok(file) = memfd_create("log", MemfdFlags::CLOEXEC) else {
        return; // Then errors are told without it.
    };
    let file = FILE.get_or_init(|| Arc::new(file.into()));
    let log = tracing_subscriber::fmt()
        .with_max_level(Level::ERROR)
        .without_time()
        .with_level(false)
        .with_target(false)
        .with_ansi(false)
        .with_writer(file.clone())
        .finish();
    let _ = tracing::subscriber::set_global_default(log);
}

/// The first complaint, which is the one next to the cause.
pub fn first() -> Option<String> {
    let mut start = [0; MOST_BYTES];
    let length = FILE.get()?.read_at(&mut start, 0).ok()?;
    let text = String::from_utf8_lossy(&start[..length]);
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}
