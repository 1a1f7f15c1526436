//! What is no world, and registries that mean harm: one clear error, and nothing
//! on this host has changed.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use serde_json::json;
use worldshim::digest::Digest;

use super::roundtrip::{HTTP, second};
use super::server::{Registry, tool};
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("what_is_no_world_is_refused", foreign),
        shared("a_registry_that_means_harm", harm),
    ]
}

fn foreign(test: &Test) {
    let registry = Registry::serve(test);
    let other = second(test);
    let file = test.path("file.txt");
    fs::write(&file, "text").expect("write a file");
    let artifact = registry.at("artifact:1");
    tool(
        "oras",
        &[
            "push",
            HTTP,
            "--disable-path-validation",
            &artifact,
            file.to_str().expect("UTF-8"),
        ],
    );
    let said = other.refused(7, &["pull", &artifact, HTTP]);
    assert!(said.contains("no world"), "{said}");
    let index = test.path("index.json");
    let text = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [],
    });
    fs::write(&index, text.to_string()).expect("write an index");
    let place = registry.at("artifact:index");
    tool(
        "oras",
        &[
            "manifest",
            "push",
            HTTP,
            &place,
            index.to_str().expect("UTF-8"),
        ],
    );
    let said = other.refused(7, &["pull", &place, HTTP]);
    assert!(said.contains("index"), "{said}");
    assert!(!other.store.exists(), "no store is made for nothing");
}

/// Serves one manifest, and for every blob the same bytes, for as long as the test's process lives.
fn evil(manifest: Vec<u8>, blob: Vec<u8>, head: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (manifest, blob) = (manifest.clone(), blob.clone());
            thread::spawn(move || answer(&stream, &manifest, &blob, head));
        }
    });
    address
}

fn answer(stream: &TcpStream, manifest: &[u8], blob: &[u8], head: &str) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    while lines.next().is_some_and(|line| !line.is_empty()) {}
    let body = match request.split(' ').nth(1).unwrap_or_default() {
        path if path.contains("/manifests/") => manifest,
        path if path.contains("/blobs/") => blob,
        _ => b"{}",
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{head}Content-Length: {length}\r\n\r\n");
    let mut stream = stream;
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body);
}

/// A manifest whose every blob claims the digest of `blob` and this size.
fn manifest(blob: &[u8], size: u64) -> Vec<u8> {
    let digest = Digest::of(blob).to_string();
    let layer = |media_type: &str| json!({"mediaType": media_type, "digest": digest, "size": size});
    let kind = "application/vnd.worldshim.world";
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": format!("{kind}.v1"),
        "config": layer(&format!("{kind}.config.v1+json")),
        "layers": [
            layer(&format!("{kind}.spec.v1+json")),
            layer(&format!("{kind}.env.v1+json")),
            layer(&format!("{kind}.criu.v1.tar+zstd")),
            layer(&format!("{kind}.pages.v1")),
        ],
    })
    .to_string()
    .into_bytes()
}

fn harm(test: &Test) {
    let other = second(test);
    let good = b"{}".to_vec();
    let sound = manifest(&good, 2);
    let climbing = String::from_utf8(sound.clone()).expect("JSON");
    let climbing = climbing.replace("sha256:", "sha256:../../");
    let deep = format!("{{\"schemaVersion\":{}", "[".repeat(100_000));
    let cases = [
        (
            "an endless manifest",
            vec![b' '; 5 << 20],
            good.clone(),
            "",
            "more than",
        ),
        (
            "a deep manifest",
            deep.into_bytes(),
            good.clone(),
            "",
            "nested",
        ),
        ("no JSON", b"<html>".to_vec(), good.clone(), "", "JSON"),
        (
            "digests that climb",
            climbing.into_bytes(),
            good.clone(),
            "",
            "digest",
        ),
        (
            "another digest than told",
            sound.clone(),
            good.clone(),
            "Docker-Content-Digest: sha256:00\r\n",
            "sha256:00",
        ),
        ("a blob that is none", sound.clone(), good.clone(), "", ""),
        (
            "a blob that is too long",
            manifest(&good, 1),
            good.clone(),
            "",
            "more than its 1 bytes",
        ),
        (
            "a blob that is too short",
            manifest(&good, 3),
            good.clone(),
            "",
            "",
        ),
        ("another blob", sound, b"[]".to_vec(), "", "has the digest"),
        (
            "more than a disk has",
            manifest(&good, u64::MAX / 64),
            good.clone(),
            "",
            "room",
        ),
    ];
    for (what, manifest, blob, head, words) in cases {
        let address = evil(manifest, blob, head);
        let output = other.run(&["pull", &format!("{address}/x:1"), HTTP]);
        let said = String::from_utf8_lossy(&output.stderr);
        println!("{what}: {}", said.trim_end());
        assert!(!output.status.success(), "{what}");
        assert_eq!(said.lines().count(), 1, "{what}: {said}");
        assert!(said.contains(words) && said.len() < 1000, "{what}: {said}");
        if other.store.exists() {
            assert_eq!(other.json(&["ls"]), json!([]), "{what}");
            fs::remove_dir_all(&other.store).expect("remove");
        }
    }
}
