//! The `delete` command: containerd runs it, in the bundle, when a shim is
//! gone without having deleted its container. There is nobody to ask; what
//! there is to know lies in the bundle.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use containerd_shim::Flags;
use containerd_shim::api::DeleteResponse;

use super::events::timestamp;
use crate::error::{IoContext, Result};
use crate::runtime::{self, Target};

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
    let pid = kill_all(&target)?;
    runtime::delete(&target, true)?;
    runtime::disown_cgroup(&target)?;
    runtime::unmount_rootfs(&target.rootfs())?;
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
        cgroup.freezer()?.thaw()?;
        cgroup.kill_all()?;
    }
    Ok(pid)
}

fn init_pid(state_dir: &Path) -> Option<i32> {
    let state = std::fs::read(state_dir.join("state.json")).ok()?;
    let state: serde_json::Value = serde_json::from_slice(&state).ok()?;
    state.get("pid")?.as_i64()?.try_into().ok()
}
