//! The pipes that are a process's standard streams belong to the process's own
//! user: else it could not open `/dev/stdout` once more. runc does the same,
//! libcontainer does not.

use std::os::fd::AsFd;

use oci_spec::runtime::Spec;
use rustix::fs::{FileType, Uid, fchown, fstat};

use crate::error::{IoContext, Result};

/// Gives this process's own stdin, stdout and stderr, where they are pipes, to
/// the user of the spec's process.
pub fn give_to_user(spec: &Spec) -> Result<()> {
    let Some(process) = spec.process() else {
        return Ok(());
    };
    let user = on_host(spec, process.user().uid());
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for stream in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        let stat = fstat(stream).context(|| "look at a standard stream")?;
        let is_pipe = FileType::from_raw_mode(stat.st_mode) == FileType::Fifo;
        if is_pipe && stat.st_uid != user {
            fchown(stream, Some(Uid::from_raw(user)), None)
                .context(|| "give a standard stream its owner")?;
        }
    }
    Ok(())
}

/// A user of the container as the host knows it.
fn on_host(spec: &Spec, user: u32) -> u32 {
    let linux = spec.linux().as_ref();
    let mappings = linux
        .and_then(|linux| linux.uid_mappings().as_deref())
        .unwrap_or_default();
    mappings
        .iter()
        .find_map(|mapping| {
            let within = user.checked_sub(mapping.container_id())?;
            (within < mapping.size()).then(|| mapping.host_id() + within)
        })
        .unwrap_or(user)
}
