//! CRIU: there, new enough, and content with this kernel.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::Check;
use super::host::version_of;
use super::program;

/// The oldest version whose memory of this kernel's vDSO and options we rely on.
const OLDEST: (u32, u32) = (4, 1);
/// Far more than it takes: a tenth of this on a slow machine.
const TIMEOUT: Duration = Duration::from_secs(20);
/// What CRIU can use where the kernel has it; nothing needs these.
const OPTIONAL_FEATURES: [&str; 5] = [
    "mem_dirty_track",
    "uffd-noncoop",
    "pidfd_store",
    "timens",
    "network_lock_nftables",
];

pub(super) fn checks() -> Vec<Check> {
    let Ok(criu) = which::which("criu") else {
        return vec![Check::fail(
            "criu",
            "not found on PATH",
            "install criu 4.1 or newer (Debian 13: `apt install criu`)",
        )];
    };
    let mut checks = vec![version(&criu)];
    std::thread::scope(|scope| {
        let features: Vec<_> = OPTIONAL_FEATURES
            .iter()
            .map(|name| (*name, scope.spawn(|| has_feature(&criu, name))))
            .collect();
        checks.push(kernel_check(&criu));
        let (there, missing): (Vec<_>, Vec<_>) = features
            .into_iter()
            .map(|(name, answer)| (name, answer.join().unwrap_or(false)))
            .partition(|(_, there)| *there);
        checks.push(features_line(&names(&there), &names(&missing)));
    });
    checks
}

fn names(features: &[(&str, bool)]) -> String {
    let names: Vec<_> = features.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

fn features_line(there: &str, missing: &str) -> Check {
    let found = match (there, missing) {
        (there, "") => there.to_owned(),
        ("", missing) => format!("not available: {missing}"),
        (there, missing) => format!("{there}; not available: {missing}"),
    };
    Check::ok("criu-features", found)
}

fn version(criu: &Path) -> Check {
    let (major, minor) = OLDEST;
    let fix = format!("install criu {major}.{minor} or newer (Debian 13 has it)");
    let printed = match program::run(Command::new(criu).arg("--version"), TIMEOUT) {
        Ok(ended) => ended.text(),
        Err(error) => return Check::fail("criu", error.to_string(), fix),
    };
    let number = printed
        .lines()
        .find_map(|line| line.strip_prefix("Version:"))
        .map(str::trim)
        .unwrap_or("of unknown version");
    let found = format!("{} {number}", criu.display());
    match version_of(number) {
        Some(version) if version >= OLDEST => Check::ok("criu", found),
        _ => Check::fail("criu", found, fix),
    }
}

fn kernel_check(criu: &Path) -> Check {
    const FIX: &str = "run `criu check -v4` as root: its last lines name what the kernel lacks";
    match program::run(Command::new(criu).arg("check"), TIMEOUT) {
        Ok(ended) if ended.status.success() => {
            Check::ok("criu-check", "the kernel has what CRIU needs")
        }
        Ok(ended) => Check::fail("criu-check", last_words(&ended.text()), FIX),
        Err(error) => Check::fail("criu-check", error.to_string(), FIX),
    }
}

/// The last line that says something went wrong, else the last line.
fn last_words(log: &str) -> String {
    let line = log
        .lines()
        .rev()
        .find(|line| line.contains("Error"))
        .or_else(|| log.lines().rev().find(|line| !line.trim().is_empty()));
    line.unwrap_or("`criu check` failed without a word")
        .trim()
        .to_owned()
}

fn has_feature(criu: &Path, name: &str) -> bool {
    program::run(
        Command::new(criu).args(["check", "--feature", name]),
        TIMEOUT,
    )
    .is_ok_and(|ended| ended.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_told() {
        let log = "Warn  (x): a\nError (x): first\nError (y): second\nLooks bad.\n";
        assert_eq!(last_words(log), "Error (y): second");
        assert_eq!(last_words("Looks bad.\n\n"), "Looks bad.");
        assert!(last_words("").contains("without a word"));
    }
}
