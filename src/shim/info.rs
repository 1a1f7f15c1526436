//! What `-info` tells containerd: version and OCI features, on which idmapped
//! mounts, recursive read-only mounts and user namespaces depend.

use std::collections::HashMap;

use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use serde_json::json;

use super::RUNTIME;

/// containerd's name for the OCI features object in JSON.
const FEATURES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// The answer to `-info`.
pub fn runtime_info() -> containerd_shim::Result<RuntimeInfo> {
    let can_checkpoint = which::which("criu").is_ok();
    let features = serde_json::to_vec(&features(can_checkpoint))?;
    Ok(RuntimeInfo {
        name: RUNTIME.to_owned(),
        version: Some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        })
        .into(),
        features: Some(Any {
            type_url: FEATURES_TYPE.to_owned(),
            value: features,
            ..Default::default()
        })
        .into(),
        annotations: HashMap::new(),
        ..Default::default()
    })
}

/// The OCI features object, as far as libcontainer goes.
fn features(can_checkpoint: bool) -> serde_json::Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.1",
        "hooks": [
            "prestart", "createRuntime", "createContainer",
            "startContainer", "poststart", "poststop"
        ],
        "mountOptions": [
            "async", "atime", "bind", "defaults", "dev", "diratime", "dirsync", "exec",
            "iversion", "lazytime", "loud", "mand", "noatime", "nodev", "nodiratime",
            "noexec", "noiversion", "nolazytime", "nomand", "norelatime", "nostrictatime",
            "nosuid", "private", "rbind", "relatime", "remount", "rnoatime", "rnodev",
            "rnodiratime", "rnoexec", "rnorelatime", "rnosuid", "ro", "rprivate",
            "rro", "rrw", "rshared", "rslave", "rsuid", "runbindable", "rw", "shared",
            "slave", "strictatime", "suid", "sync", "unbindable", "idmap", "ridmap"
        ],
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "cgroup": {
                "v1": true, "v2": true, "systemd": false, "systemdUser": false, "rdma": false
            },
            "seccomp": { "enabled": true },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": false },
            "mountExtensions": { "idmap": { "enabled": true } }
        },
        "annotations": {
            "dev.worldshim.version": env!("CARGO_PKG_VERSION"),
            "org.opencontainers.runc.checkpoint.enabled": can_checkpoint.to_string()
        }
    })
}
