//! An image of the test's own, whole: those of the lab are there as snapshots only.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use worldshim::digest::Digest;

use super::ctr::{self, BUSYBOX};
use super::suite::Test;

/// Makes an image of the files of busybox's, in containerd's store, and gives its name.
pub fn whole(test: &Test) -> String {
    let name = test.image("whole");
    let folder = test.path("image");
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("make a folder");
    let (mount, tar) = (test.path("mounted"), test.path("layer.tar"));
    fs::create_dir_all(&mount).expect("make a folder");
    let mounted = mount.to_str().expect("UTF-8");
    ctr::ok(&["image", "mount", BUSYBOX, mounted]);
    command(
        "tar",
        &["--numeric-owner", "-C", mounted, "-cf", text(&tar), "."],
    );
    ctr::ok(&["image", "unmount", "--rm", mounted]);
    let diff = Digest::of(&fs::read(&tar).expect("the layer"));
    command("gzip", &["-n1", text(&tar)]);
    let put = |bytes: &[u8], media_type: &str| -> Value {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).expect("write a blob");
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    };
    let layer = fs::read(tar.with_extension("tar.gz")).expect("the layer");
    let layer = put(&layer, "application/vnd.oci.image.layer.v1.tar+gzip");
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [diff]},
    });
    let config = config.to_string();
    let config = put(
        config.as_bytes(),
        "application/vnd.oci.image.config.v1+json",
    );
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": config,
        "layers": [layer],
    });
    let mut manifest = put(manifest.to_string().as_bytes(), manifest_type);
    manifest["annotations"] = json!({"io.containerd.image.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(folder.join("index.json"), index.to_string()).expect("write the index");
    fs::write(
        folder.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .expect("write");
    let archive = test.path("image.tar");
    let members = ["oci-layout", "index.json", "blobs"];
    command(
        "tar",
        &[&["-C", text(&folder), "-cf", text(&archive)], &members[..]].concat(),
    );
    ctr::ok(&["image", "import", text(&archive)]);
    name
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[track_caller]
fn command(program: &str, words: &[&str]) {
    let done = Command::new(program).args(words).status();
    assert!(done.expect(program).success(), "{program} {words:?}");
}
