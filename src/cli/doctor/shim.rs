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
const TIMEOUT: Duration = Duration::from_secs(5);
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
    match runtime_info(&shim) {
        Err(error) => vec![Check::fail("shim", error.to_string(), INSTALL)],
        Ok(info) => vec![version(&shim, &info, home), seccomp(&info)],
    }
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

fn version(shim: &Path, info: &RuntimeInfo, home: &Home) -> Check {
    let ours = env!("CARGO_PKG_VERSION");
    let found = format!("{} {}", shim.display(), info.version.version);
    if info.version.version != ours {
        return Check::warn("shim", format!("{found}; this command is {ours}"), INSTALL);
    }
    if !home.running {
        return Check::warn(
            "shim",
            format!("{found}, found on {}", whose_path(home)),
            "start containerd and look again: its PATH counts",
        );
    }
    Check::ok("shim", found)
}

/// What the shim says of itself when containerd asks, as it does before each container.
fn runtime_info(shim: &Path) -> Result<RuntimeInfo> {
    let ended = program::run(Command::new(shim).arg("-info"), TIMEOUT)?;
    if !ended.status.success() {
        return Err(unfit(shim, &how_it_ended(&ended)));
    }
    RuntimeInfo::parse_from_bytes(&ended.stdout)
        .ok()
        .filter(|info| !info.name.is_empty())
        .ok_or_else(|| unfit(shim, "prints no runtime information"))
}

fn how_it_ended(ended: &program::Ended) -> String {
    let how = match (ended.status.code(), ended.status.signal()) {
        (Some(code), _) => format!("exits with {code}"),
        (None, signal) => format!("dies of signal {}", signal.unwrap_or(0)),
    };
    format!("{how}: {}", ended.text().trim())
}

fn unfit(shim: &Path, what: &str) -> Error {
    Error::new(
        ErrorKind::HostUnfit,
        format!("{} -info {what}", shim.display()),
    )
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
