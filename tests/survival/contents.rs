//! What is in a world directory.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Instant;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::common::container::Container;
use crate::common::ctr;
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![shared("contents_of_a_world", contents)]
}

const SECRETS: [&str; 3] = [
    "geheim-4711-geheim",
    "hunter2-hunter2",
    "ghp_0123456789abcdefghijklmnopqrstuvwxyz",
];

fn contents(test: &Test) {
    let [password, url, token] = [
        format!("DB_PASSWORD={}", SECRETS[0]),
        format!("DATABASE_URL=postgres://u:{}@db/x", SECRETS[1]),
        format!("HARMLESS={}", SECRETS[2]),
    ];
    let options = [
        "--env",
        &password,
        "--env",
        &url,
        "--env",
        &token,
        "--env",
        "PLAIN=plainly visible",
    ];
    let options = [&options[..], &["--hostname", "myhost", "--label", "who=me"]].concat();
    let container = Container::counter(test, "a", &options);
    let fifos = test.path("fifos");
    let background = [
        "--exec-id",
        "background",
        "--fifo-dir",
        fifos.to_str().expect("UTF-8"),
        &container.id,
    ];
    ctr::ok(&[&["task", "exec", "-d"], &background[..], &["sleep", "1000"]].concat());
    let begun = Instant::now();
    let world = container.checkpoint_to(test, "world");
    let took = begun.elapsed().as_nanos() as u64;
    let manifest = json(&world.join("world.json"));
    layout(&world, &manifest);

    let times = &manifest["times"];
    let (frozen, total) = (number(&times["frozenNs"]), number(&times["totalNs"]));
    assert!(
        frozen > 1_000_000 && frozen <= total && total <= took,
        "{frozen} {total} {took}"
    );
    assert_eq!(manifest["container"]["id"], *container.id, "{manifest:#}");
    assert_eq!(manifest["container"]["namespace"], "default");
    assert_eq!(manifest["container"]["labels"]["who"], "me");
    assert_eq!(manifest["image"]["name"], ctr::BUSYBOX);
    assert!(
        manifest["base"]["chainId"]
            .as_str()
            .is_some_and(|id| id.starts_with("sha256:")),
        "{manifest:#}"
    );
    let omitted = manifest["omitted"].as_array().expect("a list");
    assert_eq!(omitted.len(), 1, "{omitted:?}");
    assert_eq!(omitted[0]["execId"], "background");
    assert_eq!(omitted[0]["command"], "sleep");

    for name in ["env.json", "spec.json"] {
        let text = fs::read_to_string(world.join(name)).expect("a part");
        assert!(text.contains("plainly visible"), "{name}: {text}");
        assert!(text.contains("<redacted:hmac-sha256:"), "{name}: {text}");
    }
    assert!(
        number(&Value::from(
            manifest["redacted"].as_array().expect("a list").len()
        )) >= 6,
        "{manifest:#}"
    );
    for entry in fs::read_dir(&world).expect("the world").flatten() {
        let is_image = entry.file_name().to_string_lossy().ends_with(".img");
        let bytes = fs::read(entry.path()).expect("a file");
        for secret in SECRETS.iter().filter(|_| !is_image) {
            let there = memchr::memmem::find(&bytes, secret.as_bytes()).is_some();
            assert!(!there, "{secret} is in {:?}", entry.file_name());
        }
    }
    // The restored process has them, of course.
    let clone = Container::create(test, "b", &options, ctr::BUSYBOX, &["sh"]);
    clone.start(Some(&world), &Default::default());
    let environ = fs::read(format!("/proc/{}/environ", clone.pid())).expect("environ");
    for secret in SECRETS {
        assert!(
            memchr::memmem::find(&environ, secret.as_bytes()).is_some(),
            "{secret} is lost"
        );
    }
}

/// Flat, private, and exactly what the manifest lists.
fn layout(world: &Path, manifest: &Value) {
    let private = |path: &Path, mode: u32| {
        let metadata = fs::symlink_metadata(path).expect("metadata");
        assert_eq!(
            metadata.permissions().mode() & 0o7777,
            mode,
            "{}",
            path.display()
        );
        assert_eq!(metadata.uid(), 0);
        metadata
    };
    private(world, 0o700);
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(world).expect("the world").flatten() {
        assert!(
            private(&entry.path(), 0o600).is_file(),
            "{:?}",
            entry.file_name()
        );
        found.insert(entry.file_name().to_string_lossy().into_owned());
    }
    assert!(found.remove("world.json"));
    let parts = manifest["parts"].as_array().expect("parts").iter();
    for file in parts.flat_map(|part| part["files"].as_array().expect("files")) {
        let name = file["name"].as_str().expect("a name");
        assert!(found.remove(name), "{name} is listed and not there");
        let bytes = fs::read(world.join(name)).expect("a listed file");
        assert_eq!(number(&file["size"]), bytes.len() as u64, "{name}");
        let digest = match file.get("pieceSize").map(number) {
            None => Sha256::digest(&bytes),
            Some(size) => {
                let pieces = bytes.chunks(usize::try_from(size).expect("a size"));
                Sha256::digest(pieces.map(Sha256::digest).collect::<Vec<_>>().concat())
            }
        };
        let digest = hex::encode(digest);
        assert!(
            file["sha256"]
                .as_str()
                .is_some_and(|sha256| sha256.ends_with(&digest)),
            "{name}"
        );
    }
    assert!(found.is_empty(), "not listed: {found:?}");
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON")
}

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}
