//! A small real world to work on.
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use time::OffsetDateTime;
use worldshim::digest::Digest;
use worldshim::world::checksum::sealed;
use worldshim::world::directory::WorldDirWriter;
use worldshim::world::follow::ImageHasher;
use worldshim::world::host::HostFacts;
use worldshim::world::manifest::*;

/// Facts of this host with a CRIU that need not be installed.
pub fn host() -> HostFacts {
    HostFacts::gather(Some("4.1.1")).unwrap()
}

/// A manifest without parts.
pub fn manifest(host: &HostFacts) -> Manifest {
    Manifest {
        base: Some(BaseLayers {
            chain_id: Some(format!("sha256:{}", "a".repeat(64))),
            lowerdirs: 1,
            snapshotter: "overlayfs".into(),
        }),
        checksum: Digest::default(),
        container: ContainerIdentity {
            id: "counter".into(),
            labels: BTreeMap::from([("app".into(), "counter".into())]),
            namespace: "default".into(),
            runtime: "io.containerd.world.v1".into(),
        },
        created: OffsetDateTime::from_unix_timestamp_nanos(1_764_000_000_123_456_789).unwrap(),
        dump: serde_json::from_value(serde_json::json!({
            "externalMounts": [
                {"point": "/etc/hosts", "purpose": "bind", "destination": "/etc/hosts", "below": ""}
            ],
            "externalUnix": false,
            "fileLocks": true,
            "hostname": "counter",
            "namespaces": [{"inode": 4026532001u32, "kind": "net", "place": "own"}],
            "stdio": [{"fd": 1, "key": "pipe:[4711]"}],
            "tcp": {"inside": 2, "outside": 1},
            "terminal": false
        }))
        .unwrap(),
        format: FORMAT,
        host: host.clone(),
        image: Some(ImageIdentity {
            digest: None,
            name: "docker.io/library/busybox:latest".into(),
        }),
        kind: KIND.into(),
        omitted: vec![OmittedProcess {
            command: "sh".into(),
            exec_id: Some("debug".into()),
            pid: 4711,
        }],
        parts: Vec::new(),
        redacted: vec![Redaction {
            name: "API_KEY".into(),
            place: "spec.process.env".into(),
        }],
        times: Times {
            frozen_ns: 65_000_000,
            parts_ns: BTreeMap::from([("processes".into(), 60_000_000)]),
            total_ns: 80_000_000,
        },
    }
}

/// Writes a world with all parts into `path`, as a checkpoint does.
pub fn write_world(path: &Path, host: &HostFacts) {
    let writer = WorldDirWriter::create(path).unwrap();
    let hasher = ImageHasher::start(writer.dir()).unwrap();
    std::fs::write(path.join("inventory.img"), b"inventory of processes").unwrap();
    std::fs::write(path.join("pages-1.img"), vec![0x5a; 300_000]).unwrap();
    std::fs::write(path.join("empty.img"), b"").unwrap();
    let mut rootfs = writer.file("rootfs.tar").unwrap();
    rootfs.write_all(&[1; 5000]).unwrap();
    let rootfs = rootfs.finish();
    let spec = writer
        .write("spec.json", b"{\"ociVersion\":\"1.2.0\"}")
        .unwrap();
    let env = writer.write("env.json", b"{}").unwrap();
    let mut manifest = manifest(host);
    manifest.parts = vec![
        Part::new(PartKind::Processes, hasher.finish().unwrap()),
        Part::new(PartKind::Rootfs, vec![rootfs]),
        Part::new(PartKind::Spec, vec![spec]),
        Part::new(PartKind::Env, vec![env]),
    ];
    writer.commit(&manifest, false).unwrap();
}

/// A world in a temporary directory.
pub fn world() -> (TempDir, PathBuf, HostFacts) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("world");
    let host = host();
    write_world(&path, &host);
    (temp, path, host)
}

/// The bytes of a manifest that someone edited who knows how to make the checksum fit.
pub fn resealed(mut value: serde_json::Value) -> Vec<u8> {
    if value
        .get("checksum")
        .is_some_and(|checksum| checksum.is_string())
    {
        value["checksum"] = Digest::default().to_string().into();
    }
    let bytes = serde_json::to_vec(&value).unwrap();
    sealed(bytes.clone()).unwrap_or(bytes)
}

/// Everything that can be seen of a directory: names, kinds, modes, times, contents.
pub fn look(path: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let mut seen: Vec<_> = path
        .read_dir()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let meta = entry.path().symlink_metadata().unwrap();
            let times = (meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
            let what = (
                meta.mode(),
                meta.uid(),
                meta.size(),
                meta.ino(),
                meta.nlink(),
            );
            format!("{:?} {what:?} {times:?}", entry.file_name())
        })
        .collect();
    seen.sort();
    seen
}
