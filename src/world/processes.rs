//! The process tree of a container: captured by CRIU and brought back by it.
//!
//! [`dump()`] writes CRIU's images of a container that the caller has frozen,
//! and says in [`DumpParameters`] what a restore has to replay. [`restore()`]
//! brings the processes back under whatever identity the new OCI spec gives
//! them: other cgroups, root filesystem, bind sources, namespaces, hostname
//! and standard streams.
//!
//! Both are synchronous and meant for a short-lived process of their own: a
//! restored tree becomes a child of the process that calls [`restore()`].

mod dump;
mod external_mounts;
mod held_files;
mod leftovers;
mod mount_table;
mod namespaces;
mod obstacles;
mod orphan;
mod parameters;
mod rescue;
mod restore;
mod restored_images;
mod restrictions;
mod stdio;
mod tcp;
mod tree;
mod vfork;

pub use dump::{DumpRequest, ProcessesDumped, dump, settle};
pub use external_mounts::{ExternalMount, MountPurpose};
pub use held_files::held_files;
pub use namespaces::{Namespace, Place};
pub use orphan::await_orphan;
pub use parameters::{DumpParameters, TcpFacts};
pub use restore::{RestoreRequest, Restored, RestoredStdio, TcpPolicy, restore};
pub use stdio::StdioFile;
pub use tree::Process;

use crate::error::{Error, ErrorKind, Result};

/// Runs `action` on a thread of its own, whose namespaces it may change.
pub(super) fn on_own_thread<T: Send>(action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let joined = std::thread::scope(|scope| scope.spawn(action).join());
    joined.unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "a thread panicked")))
}
