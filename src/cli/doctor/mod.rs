//! `world doctor`: can this host run, freeze and restore containers?
//!
//! Every check looks at the real thing: it mounts an overlay, freezes a
//! process, asks containerd, runs CRIU and the shim. Nothing of it stays.

mod cgroups;
mod criu;
mod daemon;
mod host;
mod overlay;
mod program;
mod registration;
mod shim;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::output::{self, Format};
use crate::containerd::Containerd;
use crate::error::{Error, ErrorKind, Result};

/// `world doctor`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// containerd's socket.
    #[arg(long, default_value = "/run/containerd/containerd.sock")]
    address: PathBuf,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// As it should be.
    Ok,
    /// Containers run, freeze and come back, but something optional is missing.
    Warn,
    /// Something needed is missing.
    Fail,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    status: Status,
    /// What is there.
    found: String,
    /// What to do about it, unless all is well.
    fix: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Check {
        Check {
            name,
            status: Status::Ok,
            found: found.into(),
            fix: None,
        }
    }

    fn warn(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Check {
        Check {
            name,
            status: Status::Warn,
            found: found.into(),
            fix: Some(fix.into()),
        }
    }

    fn fail(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Check {
        Check {
            status: Status::Fail,
            ..Check::warn(name, found, fix)
        }
    }
}

/// All lines.
#[derive(Debug, Serialize)]
struct Report {
    checks: Vec<Check>,
}

/// Runs all checks, prints them, and fails with [`ErrorKind::HostUnfit`] when one failed.
pub(super) fn run(args: &Args, format: Format) -> Result<()> {
    let report = Report {
        checks: all_checks(args),
    };
    output::print(format, &report, human)?;
    let failed = report.count(Status::Fail);
    if failed == 0 {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::HostUnfit,
        format!("{failed} of {} checks failed", report.checks.len()),
    ))
}

fn all_checks(args: &Args) -> Vec<Check> {
    // CRIU probes the kernel for a few hundred milliseconds: meanwhile, the rest.
    let criu = std::thread::spawn(criu::checks);
    let containerd = Containerd::connect(&args.address, Duration::from_secs(1));
    let home = daemon::Home::of(containerd.as_ref().ok());
    let mut checks = vec![host::root(), host::kernel()];
    checks.extend(host::kernel_features());
    checks.extend(cgroups::checks());
    checks.push(overlay::check());
    checks.extend(daemon::checks(&containerd));
    checks.extend(shim::checks(&home));
    checks.push(registration::check(&home));
    checks.extend(host::disks(&home));
    checks.extend(criu.join().unwrap_or_default());
    checks
}

impl Report {
    fn count(&self, status: Status) -> usize {
        self.checks.iter().filter(|c| c.status == status).count()
    }
}

fn human(report: &Report) -> String {
    use std::fmt::Write;
    let width = report
        .checks
        .iter()
        .map(|c| c.name.len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for check in &report.checks {
        let status = match check.status {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "fail",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{status:<4}  {:<width$}  {}", check.name, check.found);
        if let Some(fix) = &check.fix {
            let _ = writeln!(text, "{:indent$}fix: {fix}", "", indent = width + 8);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_align_and_say_what_to_do() {
        let report = Report {
            checks: vec![
                Check::ok("root", "running as root"),
                Check::fail("criu", "not found", "install criu"),
            ],
        };
        assert_eq!(
            human(&report),
            "ok    root  running as root\nfail  criu  not found\n            fix: install criu\n"
        );
    }
}
