//! The spec of a container that a world is restored into: what the world wishes,
//! as far as this host allows it.
//!
//! A world may come from anywhere. Its spec is taken apart: what gives no power
//! over the host is taken over (program, user, limits, its own namespaces, what
//! restricts it); what does is refused, by name, unless the caller trusts the
//! world: mounts of host paths, devices, capabilities beyond those that
//! containers have by default, the host's namespaces, hooks, kernel parameters.
//! What belongs to the old container (cgroup, annotations, paths of namespaces)
//! is replaced or left out.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use oci_spec::runtime::{
    Capabilities, Capability, Hooks, Linux, LinuxNamespaceType, Mount, Process, Spec,
};

use super::fingerprint::is_marker;
use super::policy::PREFIX;
use crate::{Error, ErrorKind, Result};

/// The label of a container that was restored: the digest of its world's manifest.
pub const WORLD_LABEL: &str = "dev.worldshim.world";

/// Capabilities that containerd and Docker give to every container.
const CAPABILITIES: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// Types of mounts that show nothing of the host's files.
const HARMLESS_MOUNTS: [&str; 7] = [
    "proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2",
];

/// Namespaces without which a container acts on the host itself.
const NAMESPACES: [LinuxNamespaceType; 5] = [
    LinuxNamespaceType::Pid,
    LinuxNamespaceType::Mount,
    LinuxNamespaceType::Ipc,
    LinuxNamespaceType::Uts,
    LinuxNamespaceType::Network,
];

/// What whoever restores asks for beside the world's own wishes.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// The container's id.
    pub id: String,
    /// containerd's namespace, for the cgroup.
    pub namespace: String,
    /// A hostname other than the world's.
    pub hostname: Option<String>,
    /// Variables for processes that are executed later, `NAME=VALUE`.
    pub env: Vec<String>,
    /// Keep connections to outside, instead of closing them.
    pub tcp_established: bool,
    /// Annotations of ours for the shim, with their prefix.
    pub annotations: Vec<(String, String)>,
    /// Take over what gives power over the host.
    pub trust: bool,
}

/// The spec for a restored container, and the names of variables that were left out because
/// their values are not in the world.
///
/// [`ErrorKind::ForeignWorld`] with everything that the world wishes and the host does not
/// allow, unless it is trusted.
pub fn spec_for(world: &Spec, wishes: &Wishes) -> Result<(Spec, Vec<String>)> {
    let mut wanted = Vec::new();
    let mut spec = world.clone();
    wanted.extend(mounts(&spec));
    wanted.extend(namespaces(&spec));
    wanted.extend(powers(&spec));
    if !wanted.is_empty() && !wishes.trust {
        return Err(Error::new(
            ErrorKind::ForeignWorld,
            format!(
                "the world wants what gives power over this host: {}; restore it with --trust if \
                 you trust whoever made it",
                wanted.join(", ")
            ),
        ));
    }
    let left_out = environment(&mut spec, &wishes.env);
    let tcp = (format!("{PREFIX}tcp"), "established".to_owned());
    let mut annotations: HashMap<_, _> = wishes.annotations.iter().cloned().collect();
    annotations.extend(wishes.tcp_established.then_some(tcp));
    spec.set_annotations(Some(annotations).filter(|all| !all.is_empty()));
    spec.set_hooks(None::<Hooks>);
    if let Some(hostname) = &wishes.hostname {
        spec.set_hostname(Some(hostname.clone()));
    }
    if let Some(linux) = spec.linux_mut() {
        linux.set_cgroups_path(Some(PathBuf::from(format!(
            "/{}/{}",
            wishes.namespace, wishes.id
        ))));
        own_namespaces(linux);
    }
    Ok((spec, left_out))
}

/// Mounts that show the host's files.
fn mounts(spec: &Spec) -> Vec<String> {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    let harmless = |mount: &&Mount| {
        let options = mount.options().as_deref().unwrap_or_default();
        let binds = options
            .iter()
            .any(|option| option == "bind" || option == "rbind");
        let kind = mount.typ().as_deref().unwrap_or_default();
        !binds && HARMLESS_MOUNTS.contains(&kind)
    };
    let shown = mounts.iter().filter(|mount| !harmless(mount)).map(|mount| {
        let source = mount
            .source()
            .as_deref()
            .unwrap_or(std::path::Path::new("?"));
        format!(
            "a mount of {} at {}",
            source.display(),
            mount.destination().display()
        )
    });
    shown.collect()
}

/// Namespaces that it shares with the host or with somebody else.
fn namespaces(spec: &Spec) -> Vec<String> {
    let linux = spec.linux().clone().unwrap_or_default();
    let own: BTreeSet<String> = linux
        .namespaces()
        .iter()
        .flatten()
        .filter(|namespace| namespace.path().is_none())
        .map(|namespace| namespace.typ().to_string())
        .collect();
    let missing = NAMESPACES.iter().map(LinuxNamespaceType::to_string);
    missing
        .filter(|kind| !own.contains(kind))
        .map(|kind| format!("a {kind} namespace that is not its own"))
        .collect()
}

/// Devices, capabilities and the like.
fn powers(spec: &Spec) -> Vec<String> {
    let mut wanted = Vec::new();
    if let Some(linux) = spec.linux() {
        for device in linux.devices().iter().flatten() {
            wanted.push(format!("device {}", device.path().display()));
        }
        if linux
            .sysctl()
            .as_ref()
            .is_some_and(|sysctl| !sysctl.is_empty())
        {
            wanted.push("kernel parameters".to_owned());
        }
        if linux
            .rootfs_propagation()
            .as_deref()
            .is_some_and(|kind| kind.contains("shared"))
        {
            wanted.push("mounts that reach the host".to_owned());
        }
        let allows = |rule: &oci_spec::runtime::LinuxDeviceCgroup| {
            rule.allow() && rule.major().is_none() && rule.minor().is_none()
        };
        let resources = linux.resources().as_ref();
        let rules = resources.and_then(|resources| resources.devices().as_ref());
        if rules.into_iter().flatten().any(allows) {
            wanted.push("access to all devices".to_owned());
        }
    }
    let process = spec.process().as_ref();
    let capabilities = process.and_then(|process| process.capabilities().as_ref());
    if let Some(capabilities) = capabilities {
        let sets = [
            capabilities.bounding(),
            capabilities.effective(),
            capabilities.permitted(),
            capabilities.inheritable(),
            capabilities.ambient(),
        ];
        let more: BTreeSet<String> = sets
            .into_iter()
            .flatten()
            .flat_map(Capabilities::iter)
            .filter(|capability| !CAPABILITIES.contains(capability))
            .map(|capability| format!("CAP_{capability}"))
            .collect();
        wanted.extend(more);
    }
    let score = process.and_then(Process::oom_score_adj);
    if score.is_some_and(|score| score < 0) {
        wanted.push("to be spared when memory runs out".to_owned());
    }
    wanted
}

/// Namespaces of somebody else's, by path, become its own.
fn own_namespaces(linux: &mut Linux) {
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    for namespace in &mut namespaces {
        namespace.set_path(None);
    }
    linux.set_namespaces(Some(namespaces));
}

/// Leaves out variables whose values were redacted, and adds those that are given.
fn environment(spec: &mut Spec, given: &[String]) -> Vec<String> {
    let Some(process) = spec.process_mut() else {
        return Vec::new();
    };
    let name_of = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let given_names: BTreeSet<String> = given.iter().map(|given| name_of(given)).collect();
    let mut left_out = Vec::new();
    let mut env = Vec::new();
    for variable in process.env().clone().unwrap_or_default() {
        let name = name_of(&variable);
        if given_names.contains(&name) {
            continue;
        }
        match is_marker(variable.get(name.len() + 1..).unwrap_or_default()) {
            true => left_out.push(name),
            false => env.push(variable),
        }
    }
    env.extend(given.iter().cloned());
    process.set_env(Some(env));
    left_out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// What `ctr run` makes, in short.
    fn spec(edit: impl FnOnce(&mut Value)) -> Spec {
        let mut spec = json!({
            "ociVersion": "1.2.0",
            "process": {
                "user": {"uid": 0, "gid": 0}, "args": ["sh"], "cwd": "/",
                "env": ["PATH=/bin", "API_KEY=<redacted:hmac-sha256:0123456789abcdef>"],
                "capabilities": {"bounding": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_CHOWN"]},
            },
            "root": {"path": "rootfs"},
            "hostname": "old",
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/run", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]},
            ],
            "annotations": {"cdi.k8s.io/x": "gpu"},
            "hooks": {"prestart": [{"path": "/bin/evil"}]},
            "linux": {
                "cgroupsPath": "/default/old",
                "namespaces": [
                    {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                    {"type": "network"},
                ],
                "resources": {"devices": [
                    {"allow": false, "access": "rwm"},
                    {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
                ]},
            },
        });
        edit(&mut spec);
        serde_json::from_value(spec).unwrap()
    }

    fn wishes(trust: bool) -> Wishes {
        Wishes {
            id: "new".into(),
            namespace: "default".into(),
            trust,
            ..Wishes::default()
        }
    }

    #[test]
    fn an_ordinary_world_is_taken_over_without_what_was_the_old_container_s() {
        let (spec, left_out) = spec_for(&spec(|_| {}), &wishes(false)).unwrap();
        assert_eq!(left_out, ["API_KEY"]);
        assert!(spec.hooks().is_none() && spec.annotations().is_none());
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.env().as_deref().unwrap(), ["PATH=/bin"]);
        let linux = spec.linux().as_ref().unwrap();
        let cgroup = linux.cgroups_path().as_deref().unwrap();
        assert_eq!(cgroup, std::path::Path::new("/default/new"));
        assert_eq!(spec.hostname().as_deref(), Some("old"));
    }

    #[test]
    fn what_is_given_counts() {
        let wishes = Wishes {
            hostname: Some("new".into()),
            env: vec!["API_KEY=x".into()],
            tcp_established: true,
            ..wishes(false)
        };
        let (spec, left_out) = spec_for(&spec(|_| {}), &wishes).unwrap();
        assert!(left_out.is_empty());
        assert_eq!(spec.hostname().as_deref(), Some("new"));
        let env = spec.process().as_ref().unwrap().env().clone().unwrap();
        assert_eq!(env, ["PATH=/bin", "API_KEY=x"]);
        assert_eq!(
            spec.annotations().as_ref().unwrap()["dev.worldshim.tcp"],
            "established"
        );
    }

    #[test]
    fn power_over_the_host_is_refused_by_name_and_given_on_trust() {
        type Edit = fn(&mut Value);
        let cases: [(&str, Edit); 9] = [
            (
                "/etc",
                |s| s["mounts"][1] = json!({"destination": "/x", "type": "bind", "source": "/etc", "options": ["rbind"]}),
            ),
            (
                "/etc",
                |s| s["mounts"][1] = json!({"destination": "/x", "type": "tmpfs", "source": "/etc", "options": ["bind"]}),
            ),
            (
                "/dev/sda",
                |s| {
                    s["mounts"][1] =
                        json!({"destination": "/x", "type": "ext4", "source": "/dev/sda"})
                },
            ),
            ("CAP_SYS_ADMIN", |s| {
                s["process"]["capabilities"]["ambient"] = json!(["CAP_SYS_ADMIN"])
            }),
            ("pid namespace", |s| {
                s["linux"]["namespaces"][0]["path"] = json!("/proc/1/ns/pid")
            }),
            ("net namespace", |s| {
                s["linux"]["namespaces"].as_array_mut().unwrap().pop();
            }),
            (
                "device /dev/kvm",
                |s| {
                    s["linux"]["devices"] =
                        json!([{"path": "/dev/kvm", "type": "c", "major": 10, "minor": 232}])
                },
            ),
            ("all devices", |s| {
                s["linux"]["resources"]["devices"][0] = json!({"allow": true})
            }),
            ("kernel parameters", |s| {
                s["linux"]["sysctl"] = json!({"kernel.core_pattern": "x"})
            }),
        ];
        for (words, edit) in cases {
            let spec = spec(edit);
            let error = spec_for(&spec, &wishes(false)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ForeignWorld);
            assert!(error.to_string().contains(words), "{error}");
            spec_for(&spec, &wishes(true)).unwrap();
        }
    }
}
