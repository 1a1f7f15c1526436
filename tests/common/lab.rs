//! Tests that need the lab fail outside it, with a sentence that says how to get in.

/// Why this process cannot run lab tests, if it cannot.
pub fn missing() -> Option<&'static str> {
    if std::env::var_os("WORLDSHIM_LAB").is_none() {
        return Some(
            "this test needs the lab: run it with `tests/lab/run TEST-BINARY`, or let cargo do so with \
             CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=tests/lab/run",
        );
    }
    if !rustix::process::geteuid().is_root() {
        return Some("this test needs root");
    }
    None
}
