//! Namespaces: a container's own, those it shares, and the host's.

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::tree::Process;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::runtime::network::Snapshot;

/// Where a namespace comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// Made for the container.
    Own,
    /// Made for the container, and at the dump still as it was made: nothing
    /// of it is in the images, and a restore makes another one.
    AsNew,
    /// Somebody else's, entered by a path in the spec: a pod's, say.
    Shared,
    /// The host's.
    Host,
}

/// A namespace that the processes were in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Namespace {
    /// The name in /proc/PID/ns: `net`, `pid`, `ipc`, …
    pub kind: String,
    /// Where it came from.
    pub place: Place,
    /// Its inode at the time of the dump.
    pub inode: u64,
}

/// The kinds, by their names in /proc/PID/ns.
const KINDS: [(&str, LinuxNamespaceType); 8] = [
    ("net", LinuxNamespaceType::Network),
    ("pid", LinuxNamespaceType::Pid),
    ("ipc", LinuxNamespaceType::Ipc),
    ("uts", LinuxNamespaceType::Uts),
    ("mnt", LinuxNamespaceType::Mount),
    ("user", LinuxNamespaceType::User),
    ("cgroup", LinuxNamespaceType::Cgroup),
    ("time", LinuxNamespaceType::Time),
];

/// What a spec says of one kind of namespace.
pub(super) fn in_spec(spec: &Spec, kind: &str) -> (Place, Option<PathBuf>) {
    let wanted = KINDS.iter().find(|(name, _)| *name == kind);
    let entry = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.namespaces().as_ref())
        .into_iter()
        .flatten()
        .find(|entry| wanted.is_some_and(|(_, typ)| *typ == entry.typ()));
    let path = |entry: &oci_spec::runtime::LinuxNamespace| {
        let path = entry.path().clone();
        path.filter(|path| !path.as_os_str().is_empty())
    };
    match entry.map(path) {
        Some(Some(path)) => (Place::Shared, Some(path)),
        Some(None) => (Place::Own, None),
        None => (Place::Host, None),
    }
}

/// The namespaces of the container whose init is `pid`.
pub(super) fn of_process(pid: i32, spec: &Spec) -> Result<Vec<Namespace>> {
    let mut found = Vec::new();
    for (kind, _) in KINDS {
        let Some(inode) = inode(&format!("/proc/{pid}/ns/{kind}"))? else {
            continue; // A kernel without this kind.
        };
        let place = match in_spec(spec, kind).0 {
            // A restored container has a time namespace that no spec speaks of.
            Place::Host if Some(inode) != self::inode(&format!("/proc/self/ns/{kind}"))? => {
                Place::Own
            }
            place => place,
        };
        let kind = kind.to_owned();
        found.push(Namespace { kind, place, inode });
    }
    Ok(found)
}

/// Whether the network namespace of these processes is as `new` is, and so
/// needs no capture. What cannot be told counts as no.
///
/// In a user namespace it never is: one that we make would not belong to it.
pub(super) fn network_is_as_new(
    found: &[Namespace],
    processes: &[Process],
    new: &Snapshot,
) -> bool {
    if place(found, "net") != Place::Own || place(found, "user") != Place::Host {
        return false;
    }
    let Some(init) = processes.first() else {
        return false;
    };
    let theirs = |process: &Process| inode(&format!("/proc/{}/ns/net", process.host_pid)).ok();
    let shared = theirs(init);
    processes.iter().all(|process| theirs(process) == shared)
        && Snapshot::of_process(init.host_pid).is_ok_and(|now| now == *new)
}

fn inode(path: &str) -> Result<Option<u64>> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.ino())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !path.ends_with("/pid") => {
            Ok(None)
        }
        Err(error) => Err(error).context(|| format!("look at {path}")),
    }
}

/// Where the namespace of this kind came from.
pub(super) fn place(namespaces: &[Namespace], kind: &str) -> Place {
    let found = namespaces.iter().find(|namespace| namespace.kind == kind);
    found.map_or(Place::Host, |namespace| namespace.place)
}

/// Changes where the namespace of this kind comes from.
pub(super) fn set_place(namespaces: &mut [Namespace], kind: &str, place: Place) {
    let found = namespaces
        .iter_mut()
        .filter(|namespace| namespace.kind == kind);
    found.for_each(|namespace| namespace.place = place);
}

/// The key of a namespace that CRIU leaves alone when dumping and gets when restoring.
pub(super) fn external_key(kind: &str) -> Option<&'static str> {
    match kind {
        "net" => Some("extRootNetNS"),
        "pid" => Some("extRootPidNS"),
        _ => None,
    }
}

/// How one namespace is had at a restore.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// CRIU makes it from the images, or all stay in ours.
    Images,
    /// The images name it by this key; the path is opened and passed.
    Passed(&'static str, PathBuf),
    /// The images know nothing of it, for CRIU ran in it: CRIU is started in this one.
    Entered(PathBuf),
    /// The same, in one that is made.
    Made,
    /// Entered by path instead of made.
    Joined(PathBuf),
}

/// How the recorded namespace is had under the new spec.
pub(super) fn source(recorded: &Namespace, spec: &Spec) -> Result<Source> {
    let kind = recorded.kind.as_str();
    let (wanted, path) = in_spec(spec, kind);
    match (recorded.place, wanted, path) {
        (Place::Shared, Place::Shared, Some(path)) => match external_key(kind) {
            Some(key) => Ok(Source::Passed(key, path)),
            None => joined(kind, path),
        },
        (Place::AsNew, _, _) if kind != "net" => Err(Error::new(
            ErrorKind::CorruptWorld,
            format!("a world says that its {kind} namespace is as new: only net can be"),
        )),
        (Place::AsNew, Place::Own, _) => Ok(Source::Made),
        (Place::AsNew, Place::Shared, Some(path)) => Ok(Source::Entered(path)),
        (Place::Own, Place::Shared, Some(path)) => joined(kind, path),
        (Place::Own, Place::Own, _) => Ok(Source::Images),
        (Place::Host, Place::Host, _) => Ok(Source::Images),
        // What CRIU adds by itself: a time namespace.
        (Place::Own, Place::Host, _) if kind == "time" => Ok(Source::Images),
        // The images hold what was in it; made anew it is the container's own.
        (Place::Shared, Place::Own, _) if external_key(kind).is_none() => Ok(Source::Images),
        (was, wanted, _) => Err(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "the world's {kind} namespace was {}, the new container's is {}: \
                 give the new container the same kind of {kind} namespace",
                words(was),
                words(wanted)
            ),
        )),
    }
}

fn joined(kind: &str, path: PathBuf) -> Result<Source> {
    match kind {
        "net" | "ipc" | "uts" | "time" => Ok(Source::Joined(path)),
        _ => Err(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "a restored container cannot enter {} namespace {}",
                kind,
                path.display()
            ),
        )),
    }
}

fn words(place: Place) -> &'static str {
    match place {
        Place::Own | Place::AsNew => "its own",
        Place::Shared => "a shared one",
        Place::Host => "the host's",
    }
}

/// Opens a namespace's path.
pub(super) fn open(path: &Path) -> Result<std::fs::File> {
    std::fs::File::open(path).context(|| format!("open namespace {}", path.display()))
}
