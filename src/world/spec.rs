//! The spec part: the OCI runtime spec a container ran with, redacted; and
//! whether the spec of a new container can take the processes of a world.
//!
//! A restore takes its identity (id, hostname, limits, cgroup, environment of
//! new processes) from the new container's spec. CRIU brings back processes
//! with the namespaces, mounts and privileges they had, so in these the two
//! specs must agree: what does not is refused, never passed over.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Debug;
use std::path::PathBuf;

use oci_spec::runtime::{Capability, LinuxIdMapping, LinuxNamespaceType, Mount, Process, Spec};
use serde_json::Value;

use super::secrets::Redactor;
use crate::json::{self, Limits};
use crate::{Error, ErrorKind, Result};

/// Name of the spec part's file.
pub const FILE_NAME: &str = "spec.json";
/// Limits on a spec.
pub const LIMITS: Limits = Limits {
    bytes: 16 << 20,
    depth: 64,
    string: 8 << 20,
};

/// The spec part's file: `config`, the bytes of the bundle's `config.json`, with what looks
/// like a credential replaced. Fields that we do not know are kept.
pub fn part(config: &[u8], redactor: &mut Redactor) -> Result<Vec<u8>> {
    let mut spec: Value = json::parse(config, &LIMITS).map_err(|error| {
        Error::caused_by(ErrorKind::InvalidInput, "config.json of the bundle", error)
    })?;
    redact("spec", &mut spec, redactor);
    json::to_bytes(&spec)
}

/// Reads the part's file from untrusted bytes; [`ErrorKind::CorruptWorld`] where it is wrong.
pub fn parse(bytes: &[u8]) -> Result<Spec> {
    json::parse(bytes, &LIMITS).map_err(|error| error.within(FILE_NAME))
}

/// Goes through all texts of a spec; the depth was bounded by [`LIMITS`].
fn redact(place: &str, value: &mut Value, redactor: &mut Redactor) {
    let (parent, key) = place.rsplit_once('.').unwrap_or(("", place));
    match value {
        Value::String(text) => {
            if let Some(marker) = redactor.text(parent, key, text.as_bytes()) {
                *text = marker;
            }
        }
        Value::Array(items) if key == "env" => {
            redact_strings(items, |strings| redactor.entries(place, strings));
        }
        Value::Array(items) if key == "args" => {
            redact_strings(items, |strings| redactor.arguments(place, strings));
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                redact(&format!("{place}.{index}"), item, redactor);
            }
        }
        Value::Object(fields) if key == "annotations" => {
            for (name, value) in fields {
                let Value::String(text) = value else { continue };
                if let Some(marker) = redactor.variable(place, name.as_bytes(), text.as_bytes()) {
                    *text = marker;
                }
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                // Where a mount goes is needed to compare specs, and is no secret.
                if name != "destination" {
                    redact(&format!("{place}.{name}"), value, redactor);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Lets `work` change the texts of an array; what is not a text stays.
fn redact_strings(items: &mut [Value], work: impl FnOnce(&mut [String])) {
    let (mut places, mut strings) = (Vec::new(), Vec::new());
    for (index, item) in items.iter_mut().enumerate() {
        if let Value::String(text) = item {
            places.push(index);
            strings.push(std::mem::take(text));
        }
    }
    work(&mut strings);
    for (index, text) in places.into_iter().zip(strings) {
        items[index] = Value::String(text);
    }
}

/// Whether the processes of a world that ran with the spec `world` fit into a container with
/// the spec `new`. [`ErrorKind::InvalidInput`] with the first thing that does not.
///
/// Compared: terminal, namespaces and id mappings, mounts, whether the root is read-only,
/// user, capabilities, no-new-privileges, seccomp, security labels. Everything else may differ.
pub fn compatible(world: &Spec, new: &Spec) -> Result<()> {
    terminal(world, new)?;
    namespaces(world, new)?;
    id_mappings(world, new)?;
    mounts(world, new)?;
    same("a read-only root", &read_only(world), &read_only(new))?;
    user(world, new)?;
    privileges(world, new)
}

fn misfit(message: String) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        format!("the new container does not fit the world: {message}"),
    )
}

fn same<T: PartialEq + Debug>(what: &str, world: &T, new: &T) -> Result<()> {
    match world == new {
        true => Ok(()),
        false => Err(misfit(format!(
            "{what}: the world has {world:?}, the new container {new:?}"
        ))),
    }
}

fn process<T>(spec: &Spec, field: impl FnOnce(&Process) -> Option<T>) -> Option<T> {
    spec.process().as_ref().and_then(field)
}

fn terminal(world: &Spec, new: &Spec) -> Result<()> {
    let terminal = |spec| process(spec, Process::terminal).unwrap_or(false);
    match (terminal(world), terminal(new)) {
        (true, false) => Err(misfit(
            "its processes have a terminal: create the container with one (--tty)".into(),
        )),
        (false, true) => Err(misfit(
            "its processes have no terminal: create the container without one".into(),
        )),
        _ => Ok(()),
    }
}

/// How a container has a namespace of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Has {
    /// That of the host.
    Hosts,
    /// One of its own.
    Own,
    /// One that it joined by its path.
    Joined,
}

const NAMESPACES: [(LinuxNamespaceType, &str); 8] = [
    (LinuxNamespaceType::User, "user"),
    (LinuxNamespaceType::Pid, "pid"),
    (LinuxNamespaceType::Mount, "mount"),
    (LinuxNamespaceType::Network, "network"),
    (LinuxNamespaceType::Ipc, "ipc"),
    (LinuxNamespaceType::Uts, "uts"),
    (LinuxNamespaceType::Cgroup, "cgroup"),
    (LinuxNamespaceType::Time, "time"),
];

fn namespaces(world: &Spec, new: &Spec) -> Result<()> {
    for (kind, name) in NAMESPACES {
        same(
            &format!("{name} namespace"),
            &namespace(world, kind),
            &namespace(new, kind),
        )?;
    }
    Ok(())
}

fn namespace(spec: &Spec, kind: LinuxNamespaceType) -> Has {
    let linux = spec.linux().as_ref();
    let mut all = linux
        .and_then(|linux| linux.namespaces().as_ref())
        .into_iter()
        .flatten();
    match all.find(|namespace| namespace.typ() == kind) {
        None => Has::Hosts,
        Some(namespace) => match namespace.path() {
            Some(path) if !path.as_os_str().is_empty() => Has::Joined,
            _ => Has::Own,
        },
    }
}

fn id_mappings(world: &Spec, new: &Spec) -> Result<()> {
    let mappings = |spec: &Spec, uids: bool| -> BTreeSet<(u32, u32, u32)> {
        let linux = spec.linux().as_ref();
        let list: Option<&Vec<LinuxIdMapping>> = linux.and_then(|linux| match uids {
            true => linux.uid_mappings().as_ref(),
            false => linux.gid_mappings().as_ref(),
        });
        list.into_iter()
            .flatten()
            .map(|map| (map.container_id(), map.host_id(), map.size()))
            .collect()
    };
    for (name, uids) in [("user", true), ("group", false)] {
        same(
            &format!("{name} id mappings (container, host, size)"),
            &mappings(world, uids),
            &mappings(new, uids),
        )?;
    }
    Ok(())
}

fn mounts(world: &Spec, new: &Spec) -> Result<()> {
    let has = destinations(world);
    let gets = destinations(new);
    for (destination, bind) in &has {
        match gets.get(destination) {
            Some(same) if same == bind => {}
            Some(_) => {
                return Err(misfit(format!(
                    "{}: {} in one and not in the other",
                    destination.display(),
                    "bind-mounted"
                )));
            }
            None => {
                return Err(misfit(format!(
                    "its processes have a mount at {}: create the container with one there",
                    destination.display()
                )));
            }
        }
    }
    match gets
        .keys()
        .find(|destination| !has.contains_key(*destination))
    {
        None => Ok(()),
        Some(extra) => Err(misfit(format!(
            "its processes would not see the mount at {}, which the world does not have: \
             create the container without it",
            extra.display()
        ))),
    }
}

/// Where the mounts are, and whether they are bind mounts.
fn destinations(spec: &Spec) -> BTreeMap<PathBuf, bool> {
    let mounts = spec.mounts().iter().flatten();
    mounts
        // `/x/` and `/x` are one place.
        .map(|mount| (mount.destination().components().collect(), is_bind(mount)))
        .collect()
}

fn is_bind(mount: &Mount) -> bool {
    let mut options = mount.options().iter().flatten();
    mount.typ().as_deref() == Some("bind")
        || options.any(|option| option == "bind" || option == "rbind")
}

fn read_only(spec: &Spec) -> bool {
    let root = spec.root().as_ref();
    root.and_then(|root| root.readonly()).unwrap_or(false)
}

fn user(world: &Spec, new: &Spec) -> Result<()> {
    let user = |spec| {
        process(spec, |process| {
            Some((process.user().uid(), process.user().gid()))
        })
    };
    same("user and group id", &user(world), &user(new))
}

fn privileges(world: &Spec, new: &Spec) -> Result<()> {
    let more = &capabilities(world) - &capabilities(new);
    if let Some(capability) = more.first() {
        return Err(misfit(format!(
            "its processes have the capability {capability}, which the new container does not \
             grant: create the container with it"
        )));
    }
    let locked = |spec| process(spec, Process::no_new_privileges).unwrap_or(false);
    same("no-new-privileges", &locked(world), &locked(new))?;
    let filtered = |spec: &Spec| {
        let linux = spec.linux().as_ref();
        linux.is_some_and(|linux| linux.seccomp().is_some())
    };
    same("a seccomp filter", &filtered(world), &filtered(new))?;
    let apparmor = |spec| process(spec, |process| process.apparmor_profile().clone());
    same("AppArmor profile", &apparmor(world), &apparmor(new))?;
    let selinux = |spec| process(spec, |process| process.selinux_label().clone());
    same("SELinux label", &selinux(world), &selinux(new))
}

/// Every capability in any set but the inheritable one, which grants nothing by itself.
fn capabilities(spec: &Spec) -> BTreeSet<String> {
    let Some(sets) = process(spec, |process| process.capabilities().clone()) else {
        return BTreeSet::new();
    };
    let all: [&Option<HashSet<Capability>>; 4] = [
        sets.bounding(),
        sets.effective(),
        sets.permitted(),
        sets.ambient(),
    ];
    all.into_iter()
        .flatten()
        .flatten()
        .map(|capability| format!("CAP_{capability}"))
        .collect()
}
