//! The `delete` command: containerd runs it, in the bundle, when a shim is
//! gone without having deleted its container. There is nobody to ask; what
//! there is to know lies in the bundle.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use containerd_shim::Flags;
use containerd_shim::api::DeleteResponse;

use super::events::timestamp;
use crate::error::{IoContext, Result};
use crate::runtime::{self, Target};
use crate::world::checkpoint;

/// 128 + SIGKILL: what containerd expects of a container that lost its shim.
const KILLED: u32 = 137;

/// Kills what runs, removes control groups, mounts and state.
pub fn remove(flags: &Flags) -> Result<DeleteResponse> {
    let bundle = match flags.bundle.as_str() {
        "" => std::env::current_dir().context(|| "find the bundle")?,
        given => PathBuf::from(given),
    };
    let target = Target {
        id: flags.id.clone(),
        bundle,
    };
    let criu = checkpoint::end_criu(&target);
    let killed = kill_all(&target);
    // What one step cannot remove must not keep the next from its part.
    let removed = [
        criu,
        runtime::delete(&target, true),
        runtime::disown_cgroup(&target),
        runtime::unmount_rootfs(&target.rootfs()),
        remove_socket(&target.bundle),
    ];
    let pid = killed?;
    removed.into_iter().collect::<Result<()>>()?;
    Ok(DeleteResponse {
        pid: pid.unwrap_or_default() as u32,
        exit_status: KILLED,
        exited_at: Some(timestamp(SystemTime::now())).into(),
        ..Default::default()
    })
}

/// Kills everything in the container's control groups, frozen or not. Returns
/// the process id of its init, if it was known.
fn kill_all(target: &Target) -> Result<Option<i32>> {
    let pid = init_pid(&target.state_dir());
    // Without a state of ours the cgroup that the spec names may be another's.
    let (Some(_), Ok(cgroup)) = (pid, target.cgroup()) else {
        return Ok(pid);
    };
    if cgroup.exists() {
        cgroup.kill_all()?;
    }
    Ok(pid)
}

/// Removes the dead shim's socket. One that still answers is that of a shim
/// with other containers.
fn remove_socket(bundle: &Path) -> Result<()> {
    let Some(path) = socket(bundle) else {
        return Ok(());
    };
    match UnixStream::connect(&path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(&path).context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Where containerd noted that the shim listens.
fn socket(bundle: &Path) -> Option<PathBuf> {
    let noted = std::fs::read(bundle.join("bootstrap.json")).ok()?;
    let noted: serde_json::Value = serde_json::from_slice(&noted).ok()?;
    let address = noted.get("address")?.as_str()?;
    Some(PathBuf::from(address.strip_prefix("unix://")?))
}

fn init_pid(state_dir: &Path) -> Option<i32> {
    let state = std::fs::read(state_dir.join("state.json")).ok()?;
    let state: serde_json::Value = serde_json::from_slice(&state).ok()?;
    state.get("pid")?.as_i64()?.try_into().ok()
}
