//! What other tools make of `rootfs.tar`.

use crate::scratch::{scratch, upper};
use crate::snapshot::{self, Snapshot, What, hex};
use crate::tree;
use proptest::strategy::{Strategy, ValueTree};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use worldshim::world::rootfs::capture;

/// More than a header's field for the size can say.
const LARGE: u64 = 9 << 30;

/// A layer's archive in a file, of many trees one beside the other.
fn archive(base: &Path, large: u64) -> Snapshot {
    let from = base.join("from");
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for number in 0..12 {
        let root = from.join(number.to_string());
        std::fs::create_dir_all(&root).unwrap();
        let steps = tree::trees().new_tree(&mut runner).unwrap().current();
        tree::build(&root, &steps);
    }
    // With its mark, a deleted name of full length is none that a file can have.
    for (path, node) in snapshot::of(&from) {
        let length = path.iter().rev().take_while(|&&byte| byte != b'/').count();
        if length > 251 && is_whiteout(&node.what) {
            std::fs::remove_file(from.join(std::ffi::OsStr::from_bytes(&path))).unwrap();
        }
    }
    let sparse = std::fs::File::create_new(from.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", large / 2).unwrap();
    sparse.set_len(large).unwrap();
    let long = from.join("l".repeat(200)).join("m".repeat(200));
    std::fs::create_dir_all(&long).unwrap();
    std::fs::write(long.join("text"), "far away").unwrap();
    let out = std::fs::File::create(base.join("rootfs.tar")).unwrap();
    capture(&upper(&from), out).unwrap();
    snapshot::of(&from)
}

fn is_whiteout(what: &What) -> bool {
    let whiteout = What::Device {
        block: false,
        number: 0,
    };
    *what == whiteout
}

fn empty_file() -> What {
    What::File {
        content: snapshot::sha256(b""),
        size: 0,
        stretches: Vec::new(),
    }
}

/// As another tool, which knows neither whiteouts nor sockets, shows it.
fn as_plain_tar(layer: Snapshot) -> Snapshot {
    let mut plain = Snapshot::new();
    for (path, mut node) in layer {
        let join = |dir: &[u8], name: &[u8]| match dir {
            b"" => name.to_vec(),
            dir => [dir, b"/", name].concat(),
        };
        let slash = path.iter().rposition(|&byte| byte == b'/');
        let (dir, name) = match slash {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (&b""[..], &path[..]),
        };
        let mut mark = node.clone();
        mark.what = empty_file();
        (mark.mode, mark.owner, mark.mtime) = (0, (0, 0), (0, 0));
        mark.xattrs.clear();
        if node.xattrs.remove(&b"trusted.overlay.opaque"[..]).is_some() {
            let path = join(&path, b".wh..wh..opq");
            mark.first_name = path.clone();
            plain.insert(path, mark.clone());
        }
        if is_whiteout(&node.what) {
            let path = join(dir, &[b".wh.", name].concat());
            mark.first_name = path.clone();
            plain.insert(path, mark);
            continue;
        }
        if node.what == What::Socket {
            node.what = empty_file();
        }
        plain.insert(path, node);
    }
    plain
}

pub fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn gnu_tar_extracts_all_of_it() {
    let dir = scratch();
    let expected = as_plain_tar(archive(dir.path(), LARGE));
    let to = dir.path().join("to");
    std::fs::create_dir(&to).unwrap();
    run(Command::new("tar")
        .args(["--numeric-owner", "--xattrs", "--xattrs-include=*"])
        .args(["--delay-directory-restore", "-xpf"])
        .arg(dir.path().join("rootfs.tar"))
        .arg("-C")
        .arg(&to));
    let found = snapshot::of(&to);
    for (path, node) in &expected {
        let shown = String::from_utf8_lossy(path);
        assert_eq!(
            Some(node),
            found.get(path),
            "{shown} {}",
            path.escape_ascii()
        );
    }
    assert_eq!(expected.len(), found.len());
}

#[test]
fn python_reads_names_types_sizes_and_contents() {
    let dir = scratch();
    let expected = as_plain_tar(archive(dir.path(), LARGE));
    let script = r#"
import hashlib, sys, tarfile
with tarfile.open(sys.argv[1], errors="surrogateescape") as tar:
    for member in tar:
        name = member.name.encode("utf-8", "surrogateescape")
        if member.isreg() and member.size < 1 << 20:
            what = "file " + hashlib.sha256(tar.extractfile(member).read()).hexdigest()
        else:
            what = member.type.decode()
        print(name.hex(), oct(member.mode), member.uid, member.gid, what)
"#;
    let listed = run(Command::new("python3")
        .arg("-c")
        .arg(script)
        .arg(dir.path().join("rootfs.tar")));
    let listed: std::collections::HashSet<&str> = listed.lines().collect();
    for (path, node) in expected {
        if path == b"sparse" {
            assert!(listed.iter().any(|line| line.starts_with(&hex(&path))));
            continue;
        }
        let name = if path.is_empty() {
            b".".to_vec()
        } else {
            path.clone()
        };
        let what = match &node.what {
            _ if node.first_name != path => "1".into(),
            What::Directory => "5".into(),
            What::File { content, .. } => format!("file {content}"),
            What::Symlink(_) => "2".into(),
            What::Device { block: true, .. } => "4".into(),
            What::Device { block: false, .. } => "3".into(),
            What::Fifo | What::Socket => "6".into(),
        };
        let (uid, gid) = node.owner;
        let line = format!("{} {} {uid} {gid} {what}", hex(&name), octal(node.mode));
        assert!(listed.contains(&*line), "{line}: {}", path.escape_ascii());
    }
}

fn octal(mode: u32) -> String {
    format!("{mode:#o}")
}

/// A layer of an image: what comes after `application/vnd.oci.image.layer.v1.`
/// in its type, its bytes, and the SHA-256 of its tar.
pub type Layer<'a> = (&'a str, Vec<u8>, String);

/// Writes an image of these layers to `image`, as `ctr images import` takes it.
pub fn write_image(base: &Path, layers: &[Layer<'_>]) {
    use serde_json::json;
    let image = base.join("image");
    std::fs::create_dir_all(image.join("blobs/sha256")).unwrap();
    let blob = |kind: &str, bytes: &[u8]| {
        let digest = snapshot::sha256(bytes);
        std::fs::write(image.join("blobs/sha256").join(&digest), bytes).unwrap();
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{digest}"),
            "size": bytes.len(),
        })
    };
    let ids: Vec<_> = layers
        .iter()
        .map(|(_, _, id)| format!("sha256:{id}"))
        .collect();
    let layers: Vec<_> = layers
        .iter()
        .map(|(kind, bytes, _)| blob(&format!("layer.v1.{kind}"), bytes))
        .collect();
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": { "type": "layers", "diff_ids": ids },
    });
    let config = blob("config.v1+json", config.to_string().as_bytes());
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
    let mut manifest = blob("manifest.v1+json", manifest.to_string().as_bytes());
    manifest["annotations"] = json!({ "io.containerd.image.name": "localhost/layer:latest" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    std::fs::write(image.join("index.json"), index.to_string()).unwrap();
    let layout = json!({ "imageLayoutVersion": "1.0.0" });
    std::fs::write(image.join("oci-layout"), layout.to_string()).unwrap();
}

#[test]
fn containerd_unpacks_it_as_a_layer() {
    let dir = scratch();
    let mut expected = archive(dir.path(), 8 << 20);
    let layer = |tar: Vec<u8>| ("tar", tar.clone(), snapshot::sha256(&tar));
    let tar = std::fs::read(dir.path().join("rootfs.tar")).unwrap();
    write_image(dir.path(), &[layer(vec![0; 1024]), layer(tar)]);
    let base = dir.path().display();
    let script = format!(
        "set -e; cd {base}; tar -cf image.tar -C image .
         ctr images import --snapshotter overlayfs image.tar
         newest=$(ls -td /var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs | head -1)
         cp -a $newest unpacked"
    );
    assert!(
        std::env::var_os("WORLDSHIM_LAB").is_some(),
        "needs containerd: run the tests in the lab (make test-lab)"
    );
    run(Command::new("sh").args(["-c", &script]));
    let mut found = snapshot::of(&dir.path().join("unpacked"));
    // containerd leaves the root's own time alone.
    for nodes in [&mut expected, &mut found] {
        nodes.get_mut(&b""[..]).unwrap().mtime = (0, 0);
    }
    for node in expected.values_mut().chain(found.values_mut()) {
        if let What::File { stretches, .. } = &mut node.what {
            // Go's reader fills holes with zeros, and cp may make new ones.
            stretches.clear();
        }
        if node.what == What::Socket {
            node.what = empty_file();
        }
        // containerd takes no trusted attributes from an archive (the mark of
        // an opaque directory it sets itself), and lets what is in a directory
        // inherit the directory's default ACL.
        let kept = |name: &[u8]| {
            name.ends_with(b".opaque")
                || !name.starts_with(b"trusted.") && !name.starts_with(b"system.posix_acl_")
        };
        node.xattrs.retain(|name, _| kept(name));
        // Nor times before 1970, or after 2262, where Go's nanoseconds end.
        if !(0..i64::MAX / 1_000_000_000).contains(&node.mtime.0) {
            node.mtime = (0, 0);
        }
    }
    for (path, node) in &expected {
        let shown = String::from_utf8_lossy(path);
        assert_eq!(
            Some(node),
            found.get(path),
            "{shown} {}",
            path.escape_ascii()
        );
    }
    assert_eq!(expected.len(), found.len());
}
