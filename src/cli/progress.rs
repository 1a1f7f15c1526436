//! Progress bars on stderr, for long work at a terminal.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::registry::{Moved, Watch};

/// A bar over bytes, with a rate. Nothing is shown where stderr is no terminal.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Of so many bytes in all; 0 where that is not known.
    pub fn of_bytes(what: &str, bytes: u64) -> Progress {
        let bar = match bytes {
            0 => ProgressBar::new_spinner(),
            bytes => ProgressBar::new(bytes),
        };
        let template = match bytes {
            0 => "{msg} {spinner} {bytes} ({bytes_per_sec})",
            _ => "{msg} {wide_bar} {bytes}/{total_bytes} ({bytes_per_sec}, {eta})",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress(bar)
    }

    /// So many more bytes are done.
    pub fn add(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// So many bytes need not be done.
    pub fn skip(&self, bytes: u64) {
        self.0.dec_length(bytes);
    }

    /// Work that cannot be measured.
    pub fn waiting(what: &str) -> Progress {
        let bar = ProgressBar::new_spinner();
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress(bar)
    }
}

/// A watch over what a registry sends or is sent, for a bar.
pub(super) fn watch(bar: &Arc<Progress>) -> Watch {
    let bar = Arc::clone(bar);
    Arc::new(move |moved| match moved {
        Moved::Carried(bytes) => bar.add(bytes),
        Moved::Skipped(bytes) => bar.skip(bytes),
    })
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A size for people: `12.35 MiB`.
pub(super) fn size(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

/// A duration for people: `63 ms`.
pub(super) fn duration(nanoseconds: u64) -> String {
    match Duration::from_nanos(nanoseconds) {
        time if time < Duration::from_secs(10) => format!("{:.0} ms", time.as_secs_f64() * 1e3),
        time => format!("{:.1} s", time.as_secs_f64()),
    }
}
