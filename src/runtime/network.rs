//! Network namespaces as a container gets them: the loopback interface is up,
//! the spec's `net.*` sysctls are set, and nothing else is in it.
//!
//! A namespace that is still as it was made needs no capture: one of the same
//! kind is made at the restore. CRIU would take it apart with half a dozen
//! programs and a walk through the kernel's whole connection table, which is
//! more than half of the time of a small dump. Whether it is still as it was
//! made is no matter of opinion: it is compared with one that was made just now.

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::fs::{Dir, FileType, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::thread::LinkNameSpaceType;

use super::netlink::{Netlink, without};
use crate::error::{Error, ErrorKind, IoContext, Result};

/// Index of the loopback interface in every network namespace.
const LOOPBACK: i32 = 1;
const IFF_UP: u32 = 1;
const RTM_NEWLINK: u16 = 16;

/// What the kernel is asked about a namespace: type of the request, length of
/// the structure in question and answer, attributes that change by themselves
/// (counters and times).
const ROUTING: [(u16, usize, &[u16]); 4] = [
    // Interfaces less IFLA_STATS, IFLA_STATS64, IFLA_AF_SPEC (repeats sysctls
    // and counters), and the counts of carrier changes.
    (18, 16, &[7, 23, 26, 35, 47, 48]),
    (22, 8, &[6]),   // addresses less IFA_CACHEINFO
    (26, 12, &[12]), // routes less RTA_CACHEINFO
    (34, 12, &[]),   // rules
];
/// The packet filter's tables, in the same terms.
const FILTER: (u16, usize, &[u16]) = ((10 << 8) | 1, 4, &[]);

/// The old packet filters' tables in use.
const TABLE_NAMES: [&str; 3] = ["ip_tables_names", "ip6_tables_names", "arp_tables_names"];
const SYSCTLS: &str = "/proc/sys/net";
/// Our thread's view of its network namespace.
const PROC_NET: &str = "/proc/thread-self/net";

/// Everything about a namespace that a restore would have to bring back.
/// What the kernel refuses to tell is told by the same error everywhere.
#[derive(PartialEq, Eq)]
pub struct Snapshot {
    objects: Vec<std::result::Result<Vec<Vec<u8>>, Errno>>,
    files: BTreeMap<PathBuf, Option<Vec<u8>>>,
}

/// Brings the loopback interface up where the container of `spec` with the
/// init `pid` has a network namespace of its own. libcontainer leaves it down.
///
/// A namespace that the spec names by path is somebody else's to set up.
pub(super) fn bring_up_loopback(spec: &Spec, pid: i32) -> Result<()> {
    let linux = spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().clone());
    let is_new = namespaces.unwrap_or_default().iter().any(|namespace| {
        namespace.typ() == LinuxNamespaceType::Network && namespace.path().is_none()
    });
    match is_new {
        true => within(pid, loopback_up),
        false => Ok(()),
    }
}

/// Makes a namespace as the container of `spec` would get it.
pub fn make(spec: &Spec) -> Result<OwnedFd> {
    on_a_thread(|| {
        become_new(spec)?;
        let path = "/proc/thread-self/ns/net";
        File::open(path)
            .map(OwnedFd::from)
            .context(|| format!("open {path}"))
    })
}

impl Snapshot {
    /// Of a namespace as the container of `spec` would get it.
    pub fn of_new(spec: &Spec) -> Result<Snapshot> {
        on_a_thread(|| {
            become_new(spec)?;
            Snapshot::take()
        })
    }

    /// Of the namespace of a process.
    pub fn of_process(pid: i32) -> Result<Snapshot> {
        within(pid, Snapshot::take)
    }

    fn take() -> Result<Snapshot> {
        let what = || "look at the network namespace";
        let route = Netlink::route().context(what)?;
        let mut objects: Vec<_> = ROUTING.iter().map(|ask| listed(&route, *ask)).collect();
        let filter = Netlink::netfilter();
        objects.push(filter.and_then(|filter| listed(&filter, FILTER)));
        let mut files = BTreeMap::new();
        for name in TABLE_NAMES {
            let path = Path::new(PROC_NET).join(name);
            let text = std::fs::read(&path).unwrap_or_default();
            files.insert(path, Some(text));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let sysctls = rustix::fs::open(SYSCTLS, flags, Mode::empty());
        let sysctls = sysctls.context(|| format!("open {SYSCTLS}"))?;
        read_below(&sysctls, Path::new(SYSCTLS), &mut files)?;
        Ok(Snapshot { objects, files })
    }
}

fn listed(
    socket: &Netlink,
    (kind, structure, dropped): (u16, usize, &[u16]),
) -> std::result::Result<Vec<Vec<u8>>, Errno> {
    let found = socket.dump(kind, &vec![0; structure])?;
    let mut kept: Vec<_> = found
        .iter()
        .map(|body| without(body, structure, dropped))
        .collect();
    kept.sort();
    Ok(kept)
}

/// All files below a folder; `None` for one that cannot be read.
///
/// There are hundreds, and the container stands still meanwhile: three system
/// calls for each, where `std::fs::read` makes six.
fn read_below(
    folder: &OwnedFd,
    path: &Path,
    files: &mut BTreeMap<PathBuf, Option<Vec<u8>>>,
) -> Result<()> {
    let what = || format!("list {}", path.display());
    for entry in Dir::read_from(folder).context(what)? {
        let entry = entry.context(what)?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let below = path.join(OsStr::from_bytes(name.to_bytes()));
        if entry.file_type() == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder = openat(folder, name, flags, Mode::empty());
            let folder = folder.context(|| format!("open {}", below.display()))?;
            read_below(&folder, &below, files)?;
        } else {
            files.insert(below, read_small(folder, name).ok());
        }
    }
    Ok(())
}

/// Reads a sysctl: what is more than the kernel gives at once is not one.
fn read_small(folder: &OwnedFd, name: &CStr) -> rustix::io::Result<Vec<u8>> {
    let file = openat(
        folder,
        name,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut bytes = [0; 4096];
    let length = rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut bytes[..]))?;
    Ok(bytes[..length].to_vec())
}

/// Moves this thread into a new namespace as a container would get it.
fn become_new(spec: &Spec) -> Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNET)
        .map_err(std::io::Error::from)
        .context(|| "make a network namespace")?;
    loopback_up()?;
    let linux = spec.linux().as_ref();
    let sysctls = linux.and_then(|linux| linux.sysctl().clone());
    for (name, value) in sysctls.unwrap_or_default() {
        if name.starts_with("net.") && !name.contains('/') {
            let path = Path::new("/proc/sys").join(name.replace('.', "/"));
            std::fs::write(&path, value).context(|| format!("set sysctl {name}"))?;
        }
    }
    Ok(())
}

/// `struct ifinfomsg`: raise the flag IFF_UP and touch no other.
fn loopback_up() -> Result<()> {
    let mut link = vec![0; 4]; // family, device type
    link.extend(LOOPBACK.to_ne_bytes());
    link.extend(IFF_UP.to_ne_bytes());
    link.extend(IFF_UP.to_ne_bytes());
    Netlink::route()
        .and_then(|route| route.request(RTM_NEWLINK, &link))
        .context(|| "bring up the container's loopback interface")
}

fn within<T: Send>(pid: i32, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let path = format!("/proc/{pid}/ns/net");
    let namespace = File::open(&path).context(|| format!("open {path}"))?;
    on_a_thread(|| {
        let kind = Some(LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(namespace.as_fd(), kind)
            .context(|| format!("enter {path}"))?;
        action()
    })
}

/// Where an action changes its thread's namespace, the thread must end with it.
fn on_a_thread<T: Send>(action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| scope.spawn(action).join())
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "a thread panicked")))
}
