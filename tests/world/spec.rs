use oci_spec::runtime::Spec;
use serde_json::{Value, json};
use worldshim::ErrorKind;
use worldshim::world::secrets::{FingerprintKey, Redactor, Rules, SecretsConfig};
use worldshim::world::spec;

/// A spec like containerd's.
fn base() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["server", "--token=abc"],
            "env": ["PATH=/bin", "DATABASE_URL=postgres://u:p@db/x"],
            "cwd": "/",
            "capabilities": {"bounding": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_CHOWN"]},
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs"},
        "hostname": "one",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm"},
            {"destination": "/data", "type": "bind", "source": "/srv/data", "options": ["rbind"]}
        ],
        "annotations": {"example.org/secret": "x", "example.org/tier": "web"},
        "futureField": {"keep": [1, 2]},
        "linux": {
            "cgroupsPath": "/default/one",
            "resources": {"memory": {"limit": 1000}},
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
            "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
            "namespaces": [
                {"type": "pid"}, {"type": "mount"}, {"type": "uts"}, {"type": "ipc"},
                {"type": "network", "path": "/run/netns/a"}, {"type": "user"}
            ]
        }
    })
}

fn compare(change: impl FnOnce(&mut Value)) -> worldshim::Result<()> {
    let mut new = base();
    change(&mut new);
    let read = |value: Value| -> Spec { serde_json::from_value(value).unwrap() };
    spec::compatible(&read(base()), &read(new))
}

#[test]
fn an_identity_of_its_own_fits() {
    compare(|_| {}).unwrap();
    compare(|new| {
        new["hostname"] = "two".into();
        new["linux"]["cgroupsPath"] = "/default/two".into();
        new["linux"]["resources"] = json!({"memory": {"limit": 5}});
        new["annotations"] = json!({});
        new["process"]["env"] = json!(["X=1"]);
        new["process"]["args"] = json!(["other"]);
        new["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "hard": 1, "soft": 1}]);
        new["process"]["capabilities"]["bounding"] =
            json!(["CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN"]);
        new["linux"]["namespaces"][4]["path"] = "/run/netns/b".into();
        new["mounts"][2]["destination"] = "/data/".into();
        new["mounts"][2]["source"] = "/srv/other".into();
        new["mounts"].as_array_mut().unwrap().reverse();
    })
    .unwrap();
}

#[test]
fn what_does_not_fit_is_named() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 19] = [
        ("no terminal", |new| {
            new["process"]["terminal"] = true.into()
        }),
        ("network namespace", |new| {
            new["linux"]["namespaces"][4] = json!({"type": "network"})
        }),
        ("network namespace", |new| {
            new["linux"]["namespaces"].as_array_mut().unwrap().remove(4);
        }),
        ("user namespace", |new| {
            new["linux"]["namespaces"].as_array_mut().unwrap().remove(5);
        }),
        ("pid namespace", |new| {
            new["linux"]["namespaces"][0]["path"] = "/proc/1/ns/pid".into()
        }),
        ("cgroup namespace", |new| {
            new["linux"]["namespaces"]
                .as_array_mut()
                .unwrap()
                .push(json!({"type": "cgroup"}));
        }),
        ("user id mappings", |new| {
            new["linux"]["uidMappings"][0]["hostID"] = 2000.into()
        }),
        ("group id mappings", |new| {
            new["linux"].as_object_mut().unwrap().remove("gidMappings");
        }),
        ("a mount at /dev/shm", |new| {
            new["mounts"].as_array_mut().unwrap().remove(1);
        }),
        ("/dev/shm: bind-mounted", |new| {
            new["mounts"][1]["type"] = "bind".into()
        }),
        ("/data: bind-mounted", |new| {
            new["mounts"][2] = json!({
                "destination": "/data", "type": "tmpfs"
            })
        }),
        ("the mount at /extra", |new| {
            new["mounts"]
                .as_array_mut()
                .unwrap()
                .push(json!({"destination": "/extra"}));
        }),
        ("read-only root", |new| {
            new["root"]["readonly"] = true.into()
        }),
        ("user and group id", |new| {
            new["process"]["user"]["uid"] = 1000.into()
        }),
        ("capability CAP_KILL", |new| {
            new["process"]["capabilities"]["bounding"] = json!(["CAP_CHOWN"]);
        }),
        ("no-new-privileges", |new| {
            new["process"]["noNewPrivileges"] = false.into()
        }),
        ("seccomp", |new| {
            new["linux"].as_object_mut().unwrap().remove("seccomp");
        }),
        ("AppArmor", |new| {
            new["process"]["apparmorProfile"] = "x".into()
        }),
        ("SELinux", |new| new["process"]["selinuxLabel"] = "x".into()),
    ];
    for (words, change) in cases {
        let error = compare(change).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
}

#[test]
fn the_part_keeps_everything_but_credentials() {
    let rules = Rules::new(&SecretsConfig::default()).unwrap();
    let mut redactor = Redactor::with_key(rules, FingerprintKey::from_bytes([1; 32]));
    let mut config = base();
    config["hooks"] =
        json!({"poststart": [{"path": "/x", "env": ["HOOK_TOKEN=t"], "args": ["x"]}]});
    let bytes = spec::part(&serde_json::to_vec(&config).unwrap(), &mut redactor).unwrap();
    let part: Value = serde_json::from_slice(&bytes).unwrap();
    let found: Vec<_> = redactor
        .found()
        .into_iter()
        .map(|redaction| format!("{} {}", redaction.place, redaction.name))
        .collect();
    assert_eq!(
        found,
        [
            "spec.process.env DATABASE_URL",
            "spec.hooks.poststart.0.env HOOK_TOKEN",
            "spec.process.args [1]",
            "spec.annotations example.org/secret",
        ]
    );
    assert_eq!(part["futureField"], config["futureField"]);
    assert_eq!(part["process"]["env"][0], "PATH=/bin");
    assert_eq!(part["mounts"], config["mounts"]);
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert!(!text.contains("u:p@db") && !text.contains("HOOK_TOKEN=t"));
    spec::compatible(&spec::parse(&bytes).unwrap(), &spec::parse(&bytes).unwrap()).unwrap();
}

#[test]
fn what_is_no_spec_is_told() {
    let rules = Rules::new(&SecretsConfig::default()).unwrap();
    let mut redactor = Redactor::with_key(rules, FingerprintKey::from_bytes([1; 32]));
    let error = spec::part(b"{", &mut redactor).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    for bytes in [
        &b""[..],
        b"[]",
        b"{\"process\":1}",
        "[".repeat(100_000).as_bytes(),
    ] {
        let error = spec::parse(bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CorruptWorld);
        assert!(error.to_string().starts_with("spec.json: "), "{error}");
    }
}
