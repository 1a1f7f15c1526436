//! The shim: where containerd will find it, and whether it runs.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use containerd_shim::protos::protobuf::Message;
use containerd_shim::protos::types::introspection::RuntimeInfo;
use oci_spec::runtime::Features;

use super::Check;
use super::daemon::Home;
use super::program;
use crate::error::{Error, ErrorKind, Result};

const BINARY: &str = "containerd-shim-world-v1";
const TIMEOUT: Duration = Duration::from_millis(700);
const INSTALL: &str = "run `make install`: it puts the shim where containerd finds it";

pub(super) fn checks(home: &Home) -> Vec<Check> {
    let Some(shim) = find(home) else {
        return vec![Check::fail(
            "shim",
            format!(
                "{BINARY} is not on {} ({})",
                whose_path(home),
                home.path.display()
            ),
            INSTALL,
        )];
    };
    let mut checks = vec![version(&shim, home)];
    match runtime_info(&shim) {
        Err(error) => checks.push(Check::fail("shim-info", error.to_string(), INSTALL)),
        Ok(info) => {
            let name = format!("runtime {} {}", info.name, info.version.version);
            checks.push(Check::ok("shim-info", name));
            checks.push(seccomp(&info));
        }
    }
    checks
}

fn whose_path(home: &Home) -> &'static str {
    if home.running {
        "containerd's PATH"
    } else {
        "this shell's PATH (containerd's own could not be read)"
    }
}

/// As containerd does: on its PATH, then beside its own executable.
fn find(home: &Home) -> Option<PathBuf> {
    which::which_in(BINARY, Some(&home.path), "/")
        .ok()
        .or_else(|| {
            let beside = home.bin.as_ref()?.join(BINARY);
            beside.is_file().then_some(beside)
        })
}

fn version(shim: &Path, home: &Home) -> Check {
    let ours = env!("CARGO_PKG_VERSION");
    let ended = match run(shim, "-v") {
        Ok(ended) => ended,
        Err(error) => return Check::fail("shim", error.to_string(), INSTALL),
    };
    let printed = ended.text();
    if !printed.contains(ours) {
        return Check::warn(
            "shim",
            format!("{} is not of this command's version {ours}", shim.display()),
            INSTALL,
        );
    }
    if !home.running {
        return Check::warn(
            "shim",
            format!("{} {ours}, found on {}", shim.display(), whose_path(home)),
            "start containerd and look again: its PATH counts",
        );
    }
    Check::ok("shim", format!("{} {ours}", shim.display()))
}

fn runtime_info(shim: &Path) -> Result<RuntimeInfo> {
    let ended = run(shim, "-info")?;
    RuntimeInfo::parse_from_bytes(&ended.stdout)
        .ok()
        .filter(|info| !info.name.is_empty())
        .ok_or_else(|| {
            Error::new(
                ErrorKind::HostUnfit,
                format!("{} -info prints no runtime information", shim.display()),
            )
        })
}

/// A shim without it would run containers without their seccomp profile.
fn seccomp(info: &RuntimeInfo) -> Check {
    let enabled = serde_json::from_slice::<Features>(&info.features.value)
        .ok()
        .and_then(|features| {
            features
                .linux()
                .as_ref()?
                .seccomp()
                .as_ref()?
                .enabled()
                .to_owned()
        });
    match enabled {
        Some(true) => Check::ok("shim-seccomp", "compiled in"),
        _ => Check::fail(
            "shim-seccomp",
            "the shim does not say that seccomp is compiled in",
            "install a shim built with libseccomp (`make install`)",
        ),
    }
}

fn run(shim: &Path, flag: &str) -> Result<program::Ended> {
    let ended = program::run(Command::new(shim).arg(flag), TIMEOUT)?;
    if ended.status.success() {
        return Ok(ended);
    }
    let how = match (ended.status.code(), ended.status.signal()) {
        (Some(code), _) => format!("exits with {code}"),
        (None, signal) => format!("dies of signal {}", signal.unwrap_or(0)),
    };
    Err(Error::new(
        ErrorKind::HostUnfit,
        format!("{} {flag} {how}: {}", shim.display(), ended.text().trim()),
    ))
}
