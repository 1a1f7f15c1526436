//! Dump and restore with the options that most tests want.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use worldshim::criu::Criu;
use worldshim::error::Result;
use worldshim::runtime::network::Snapshot;
use worldshim::world::processes::{
    self, DumpParameters, DumpRequest, ProcessesDumped, RestoreRequest, Restored, RestoredStdio,
    TcpPolicy,
};

use super::container::{Container, Place, freeze};

/// What a test may want otherwise of a dump.
pub struct Wishes<'a> {
    pub file_locks: bool,
    pub compare_network: bool,
    pub ghost_limit: u32,
    pub timeout: Duration,
    pub cancel: Option<BorrowedFd<'a>>,
}

impl Default for Wishes<'_> {
    fn default() -> Self {
        Wishes {
            file_locks: true,
            compare_network: true,
            ghost_limit: 64 << 20,
            timeout: Duration::from_secs(60),
            cancel: None,
        }
    }
}

pub fn try_dump(container: &Container, images: &Path) -> Result<ProcessesDumped> {
    dump_with(container, images, &Wishes::default())
}

pub fn dump_with(
    container: &Container,
    images: &Path,
    wishes: &Wishes<'_>,
) -> Result<ProcessesDumped> {
    let place = &container.place;
    let freezer = place.freezer();
    let set = |frozen| {
        freeze(&freezer, frozen);
        Ok(())
    };
    let new_network = Snapshot::of_new(&place.spec())?;
    processes::settle(container.pid, &freezer, || set(true), || set(false))?;
    processes::dump(&DumpRequest {
        criu: &Criu::find(None)?,
        init: container.pid,
        spec: &place.spec(),
        rootfs: &place.rootfs(),
        images_dir: images,
        work_dir: &place.log(),
        freezer_cgroup: Some(&freezer),
        new_network: wishes.compare_network.then_some(&new_network),
        leave_running: true,
        file_locks: wishes.file_locks,
        external_unix: false,
        ghost_limit: wishes.ghost_limit,
        timeout: wishes.timeout,
        cancel: wishes.cancel,
    })
}

pub fn dump(container: &Container, images: &Path) -> ProcessesDumped {
    let dumped = try_dump(container, images).unwrap_or_else(|error| panic!("dump: {error}"));
    // What a world keeps is what a restore gets.
    let text = serde_json::to_string_pretty(&dumped.parameters).unwrap();
    assert_eq!(
        serde_json::from_str::<DumpParameters>(&text).unwrap(),
        dumped.parameters
    );
    dumped
}

/// A restored container, what it prints, and the terminal if it has one.
pub fn restore(
    from: &Container,
    parameters: &DumpParameters,
    place: Place,
) -> (Container, OwnedFd, Restored) {
    let (result, reader) = try_restore(from, parameters, &place);
    let restored = result.unwrap_or_else(|error| panic!("restore: {error}"));
    let pid = restored.pid;
    (Container { place, pid }, reader, restored)
}

pub fn try_restore(
    from: &Container,
    parameters: &DumpParameters,
    place: &Place,
) -> (Result<Restored>, OwnedFd) {
    let (reader, writer) = std::io::pipe().unwrap();
    let stdio = if parameters.terminal {
        RestoredStdio::Terminal
    } else {
        RestoredStdio::Streams([None, Some(writer.as_fd()), Some(writer.as_fd())])
    };
    (restore_as(from, parameters, place, stdio), reader.into())
}

pub fn restore_with_terminal(
    from: &Container,
    parameters: &DumpParameters,
    place: &Place,
) -> Result<Restored> {
    restore_as(from, parameters, place, RestoredStdio::Terminal)
}

fn restore_as(
    from: &Container,
    parameters: &DumpParameters,
    place: &Place,
    stdio: RestoredStdio<'_>,
) -> Result<Restored> {
    processes::restore(&mut RestoreRequest {
        criu: &Criu::find(None).unwrap(),
        spec: &place.spec(),
        parameters,
        bundle: &place.base.join("bundle"),
        rootfs: &place.rootfs(),
        images_dir: &from.place.images(),
        work_dir: &place.log(),
        cgroup_procs: &place.cgroup_procs(),
        stdio,
        tcp: TcpPolicy::Close,
        lsm_profile: None,
        lazy_pages: false,
        timeout: Duration::from_secs(60),
        cancel: None,
        before_running: &mut |_| Ok(()),
        before_resuming: &mut |_| Ok(()),
    })
}
