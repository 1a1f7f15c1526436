//! The damage matrix: what fsck says of each kind of damage, and that no byte of a stored
//! world can change without its being noticed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::{Value, json};
use worldshim::ErrorKind;
use worldshim::digest::Digest;
use worldshim::store::{Document, Fault, Finding, Report, Severity, Store};

use crate::common::{Home, publish};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What is done to a blob.
type Damage = &'static dyn Fn(&Path);

/// Two worlds with the layer "shared" in common.
fn two_worlds() -> (Home, Digest, Digest) {
    let home = Home::new();
    let one = publish(&home.store, &["shared", "one"], Some("one")).digest;
    let two = publish(&home.store, &["shared", "second"], Some("two")).digest;
    (home, one, two)
}

fn fsck(home: &Home) -> Report {
    Store::fsck(home.store.path(), &|_| {}).expect("a check")
}

/// All that fsck finds; also that it finds the same again, so that it changed nothing.
fn findings(home: &Home) -> Vec<Finding> {
    let report = fsck(home);
    assert_eq!(report, fsck(home));
    let damaged = report.findings.iter();
    let damaged = damaged.filter(|f| f.severity() == Severity::Damage).count();
    assert_eq!(report.is_clean(), damaged == 0);
    assert!(report.findings.iter().all(|f| !f.to_string().is_empty()));
    report.findings
}

fn edit_index(home: &Home, edit: impl FnOnce(&mut Vec<Value>)) {
    let path = home.file("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(index["manifests"].as_array_mut().unwrap());
    fs::write(&path, index.to_string()).unwrap();
}

/// Writes a blob past the store and returns a descriptor of it.
fn smuggle(home: &Home, media_type: &str, content: &str) -> Value {
    let digest = Digest::of(content.as_bytes());
    let path = home.blob(&digest);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    json!({"mediaType": media_type, "digest": digest.to_string(), "size": content.len()})
}

fn blob_finding(digest: &Digest, fault: Fault, worlds: &[Digest]) -> Vec<Finding> {
    let mut worlds = worlds.to_vec();
    worlds.sort();
    vec![Finding::Blob {
        digest: *digest,
        fault,
        worlds,
    }]
}

#[test]
fn a_sound_store_is_clean() {
    let (home, ..) = two_worlds();
    let report = fsck(&home);
    assert_eq!(report.findings, []);
    // Two manifests, three layers, one config.
    assert_eq!((report.worlds, report.blobs), (2, 6));
    let hashed = std::sync::atomic::AtomicU64::new(0);
    let count = |bytes| {
        hashed.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
    };
    let again = Store::fsck(home.store.path(), &count).unwrap();
    assert_eq!(again.bytes, hashed.into_inner());
}

#[test]
fn damaged_content_is_named_with_the_worlds_that_need_it() {
    let shared = Digest::of(b"shared");
    let damages: [(Damage, Fault); 7] = [
        (&|path| fs::remove_file(path).unwrap(), Fault::Missing),
        (
            &|path| fs::write(path, "sha").unwrap(),
            Fault::Size {
                found: 3,
                expected: 6,
            },
        ),
        (
            &|path| fs::write(path, "shared too").unwrap(),
            Fault::Size {
                found: 10,
                expected: 6,
            },
        ),
        (
            &|path| fs::write(path, "Shared").unwrap(),
            Fault::Corrupt {
                found: Digest::of(b"Shared"),
            },
        ),
        (
            &|path| {
                fs::remove_file(path).unwrap();
                symlink("/etc/passwd", path).unwrap();
            },
            Fault::NotAFile,
        ),
        (
            &|path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
                fs::set_permissions(path, PermissionsExt::from_mode(0o700)).unwrap();
            },
            Fault::NotAFile,
        ),
        (
            &|path| {
                fs::remove_file(path).unwrap();
                let mode = rustix::fs::Mode::from_raw_mode(0o600);
                let fifo = rustix::fs::FileType::Fifo;
                rustix::fs::mknodat(rustix::fs::CWD, path, fifo, mode, 0).unwrap();
            },
            Fault::NotAFile,
        ),
    ];
    for (damage, fault) in damages {
        let (home, one, two) = two_worlds();
        damage(&home.blob(&shared));
        let expected = blob_finding(&shared, fault.clone(), &[one, two]);
        assert_eq!(findings(&home), expected, "{fault:?}");
        let lease = home.store.lease().unwrap();
        if !matches!(fault, Fault::Corrupt { .. }) {
            let error = lease.hold_world(&one).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::CorruptWorld, "{fault:?}");
        }
    }
}

#[test]
fn a_blob_that_nobody_needs_is_checked_too() {
    let (home, ..) = two_worlds();
    let stray = Digest::of(b"stray");
    smuggle(&home, "", "stray");
    fs::write(home.blob(&stray), "Stray").unwrap();
    let found = Digest::of(b"Stray");
    let expected = blob_finding(&stray, Fault::Corrupt { found }, &[]);
    assert_eq!(findings(&home), expected);
}

#[test]
fn damaged_manifests_are_named() {
    let (home, one, _) = two_worlds();
    let path = home.blob(&one);
    let bytes = fs::read_to_string(&path).unwrap();
    let forged = bytes.replacen("vnd.worldshim.world.v1", "vnd.worldshim.world.v2", 1);
    fs::write(&path, &forged).unwrap();
    let found = Digest::of(forged.as_bytes());
    let expected = blob_finding(&one, Fault::Corrupt { found }, &[one]);
    assert_eq!(findings(&home), expected);

    for (media_type, content, says) in [
        (MANIFEST, "{}", "schema"),
        (MANIFEST, "[]", "not a JSON object"),
        (MANIFEST, r#"{"schemaVersion":2}"#, "neither"),
        (
            MANIFEST,
            r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#,
            "neither",
        ),
        (MANIFEST, r#"{"schemaVersion":2,"layers":[]}"#, "config"),
        (INDEX, r#"{"schemaVersion":1,"manifests":[]}"#, "must be 2"),
    ] {
        let (home, ..) = two_worlds();
        let entry = smuggle(&home, media_type, content);
        let digest: Digest = entry["digest"].as_str().unwrap().parse().unwrap();
        edit_index(&home, |entries| entries.push(entry));
        match findings(&home).as_slice() {
            [
                Finding::Blob {
                    digest: found,
                    fault: Fault::Undecodable { why },
                    worlds,
                },
            ] => {
                assert_eq!((*found, worlds.as_slice()), (digest, &[digest][..]));
                assert!(why.contains(says), "{content}: {why}");
            }
            other => panic!("{content}: {other:?}"),
        }
        let content = content.as_bytes();
        assert_eq!(
            Document::parse(content).unwrap_err().kind(),
            ErrorKind::CorruptWorld
        );
    }
}

#[test]
fn a_manifest_is_not_taken_for_an_index() {
    let (home, one, _) = two_worlds();
    edit_index(&home, |entries| entries[0]["mediaType"] = INDEX.into());
    let fault = Fault::MediaType {
        expected: INDEX.to_owned(),
        found: MANIFEST.to_owned(),
    };
    assert_eq!(findings(&home), blob_finding(&one, fault, &[one]));
}

#[test]
fn indexes_without_end_are_given_up() {
    let home = Home::new();
    let mut entry = smuggle(&home, INDEX, r#"{"schemaVersion":2,"manifests":[]}"#);
    for _ in 0..20 {
        let content = json!({"schemaVersion": 2, "manifests": [entry]});
        entry = smuggle(&home, INDEX, &content.to_string());
    }
    edit_index(&home, |entries| entries.push(entry));
    assert!(matches!(
        findings(&home).as_slice(),
        [Finding::Blob {
            fault: Fault::TooDeep,
            ..
        }]
    ));
    assert!(home.store.gc(&Default::default()).is_err());
}

#[test]
fn a_damaged_index_is_told_and_nothing_is_swept() {
    let whole = {
        let (home, ..) = two_worlds();
        fs::read(home.file("index.json")).unwrap()
    };
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100), "]".repeat(100));
    let version = r#"{"schemaVersion":1,"manifests":[]}"#;
    let escape =
        r#"{"schemaVersion":2,"manifests":[{"mediaType":"a/b","size":1,"digest":"../../x"}]}"#;
    let damages: [Option<&[u8]>; 7] = [
        None,
        Some(b""),
        Some(&whole[..whole.len() / 2]),
        Some(b"null"),
        Some(deep.as_bytes()),
        Some(version.as_bytes()),
        Some(escape.as_bytes()),
    ];
    for damage in damages {
        let (home, ..) = two_worlds();
        match damage {
            Some(bytes) => fs::write(home.file("index.json"), bytes).unwrap(),
            None => fs::remove_file(home.file("index.json")).unwrap(),
        }
        assert!(matches!(
            findings(&home).as_slice(),
            [Finding::Index { .. }]
        ));
        let error = home.store.gc(&Default::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CorruptWorld);
        assert_eq!(
            home.store.list().unwrap_err().kind(),
            ErrorKind::CorruptWorld
        );
        let blobs = fs::read_dir(home.file("blobs/sha256")).unwrap().count();
        assert_eq!(blobs, 6);
    }
}

#[test]
fn a_damaged_layout_is_told() {
    for damage in [None, Some("{}"), Some(r#"{"imageLayoutVersion":"2.0.0"}"#)] {
        let (home, ..) = two_worlds();
        match damage {
            Some(bytes) => fs::write(home.file("oci-layout"), bytes).unwrap(),
            None => fs::remove_file(home.file("oci-layout")).unwrap(),
        }
        assert!(matches!(
            findings(&home).as_slice(),
            [Finding::Layout { .. }]
        ));
    }
}

#[test]
fn entries_that_lead_nowhere_are_named() {
    let (home, one, two) = two_worlds();
    let sha512 = format!("sha512:{}", "ab".repeat(64));
    edit_index(&home, |entries| {
        entries[0]["mediaType"] = "text/plain".into();
        entries[1]["annotations"]["org.opencontainers.image.ref.name"] = "../up".into();
        let entry = json!({"mediaType": MANIFEST, "digest": sha512, "size": 1});
        entries.push(entry);
    });
    let found = findings(&home);
    let entries: Vec<_> = found
        .iter()
        .filter_map(|finding| match finding {
            Finding::Entry { entry, .. } => Some(entry.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(entries, ["../up", "one:latest", sha512.as_str()]);
    // Nobody knows what the third needs.
    assert!(home.store.gc(&Default::default()).is_err());

    let (home, ..) = two_worlds();
    edit_index(&home, |entries| {
        entries[1]["annotations"]["org.opencontainers.image.ref.name"] = "one:latest".into();
    });
    let name = "one:latest".to_owned();
    assert_eq!(findings(&home), [Finding::DuplicateName { name }]);
    let ambiguous = home.store.resolve(&"one".parse().unwrap()).unwrap_err();
    assert_eq!(ambiguous.kind(), ErrorKind::CorruptWorld);
    let removed = home.store.remove(&two.to_string().parse().unwrap(), false);
    assert!(removed.unwrap().gone);
    assert_eq!(home.store.resolve(&"one".parse().unwrap()).unwrap(), one);
}

#[test]
fn what_others_may_read_is_named() {
    let (home, one, _) = two_worlds();
    let blob = format!("blobs/sha256/{}", one.hex());
    for path in [".", "index.json", ".worldshim", "blobs/sha256", &blob] {
        let mode = fs::metadata(home.file(path)).unwrap().permissions();
        fs::set_permissions(home.file(path), PermissionsExt::from_mode(0o755)).unwrap();
        let expected = Finding::Mode {
            path: path.to_owned(),
            mode: 0o755,
        };
        assert_eq!(findings(&home), [expected]);
        fs::set_permissions(home.file(path), mode).unwrap();
    }
}

#[test]
fn foreign_files_and_leftovers_are_noted_and_only_leftovers_swept() {
    let (home, ..) = two_worlds();
    let foreign = [
        "notes.txt",
        "blobs/sha512",
        "blobs/sha256/x",
        ".worldshim/old",
    ];
    for path in foreign {
        fs::create_dir(home.file(path)).unwrap();
    }
    let partial = Digest::of(b"partial");
    let tmp = format!(".worldshim/tmp/partial-{}", partial.hex());
    for path in [".worldshim/leases/dead", ".worldshim/tmp/dead", &tmp] {
        fs::write(home.file(path), "12345").unwrap();
    }
    let mut expected: Vec<_> = foreign
        .iter()
        .map(|path| Finding::Foreign {
            path: (*path).to_owned(),
        })
        .collect();
    let leftovers = [
        Finding::DeadLease {
            path: ".worldshim/leases/dead".to_owned(),
        },
        Finding::DeadTemporary {
            path: ".worldshim/tmp/dead".to_owned(),
            size: 5,
        },
    ];
    let partial = Finding::Partial {
        digest: partial,
        size: 5,
    };
    expected.sort();
    let before = [&expected[..], &leftovers, std::slice::from_ref(&partial)].concat();
    assert_eq!(findings(&home), before);
    let swept = home.store.gc(&Default::default()).unwrap();
    assert_eq!((swept.leases, swept.temporaries, swept.blobs), (1, 1, 0));
    expected.push(partial);
    assert_eq!(findings(&home), expected);
}

/// Every byte of every blob, flipped and cut off.
#[test]
fn no_byte_of_a_world_changes_unnoticed() {
    let home = Home::new();
    publish(&home.store, &["a layer", "b"], Some("web"));
    for entry in fs::read_dir(home.file("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            for damaged in [&flipped[..], &whole[..at]] {
                fs::write(&path, damaged).unwrap();
                assert!(!fsck(&home).is_clean(), "byte {at} of {}", path.display());
            }
        }
        fs::write(&path, whole).unwrap();
    }
    assert_eq!(findings(&home), []);
}

/// The index has no digest: its names may change unnoticed, what they stand for may not.
#[test]
fn no_byte_of_the_index_makes_half_a_world() {
    let home = Home::new();
    let digest = publish(&home.store, &["a layer", "b"], Some("web")).digest;
    let path = home.file("index.json");
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        for damaged in [&flipped[..], &whole[..at]] {
            fs::write(&path, damaged).unwrap();
            let report = fsck(&home);
            let worlds = home.store.list().unwrap_or_default();
            let lease = home.store.lease().unwrap();
            for world in worlds.iter().filter(|world| world.sizes.is_some()) {
                assert_eq!(world.digest, digest, "byte {at}");
                lease.hold_world(&world.digest).unwrap();
            }
            let whole_world = worlds.iter().any(|world| world.sizes.is_some());
            let emptied = worlds.is_empty() && report.findings.is_empty();
            assert!(whole_world || !report.is_clean(), "byte {at}: {emptied}");
        }
    }
}

/// A damaged blob does not stand in the way of a sound one.
#[test]
fn what_is_set_aside_can_be_written_again() {
    let (home, one, two) = two_worlds();
    let shared = Digest::of(b"shared");
    assert!(!home.store.set_aside(&shared).unwrap());
    assert!(!home.store.set_aside(&Digest::of(b"never")).unwrap());
    fs::write(home.blob(&shared), "Shared").unwrap();
    // The name and the size fit, so nobody writes it again.
    publish(&home.store, &["shared", "one"], Some("one"));
    assert!(!fsck(&home).is_clean());
    assert!(home.store.set_aside(&shared).unwrap());
    let missing = blob_finding(&shared, Fault::Missing, &[one, two]);
    assert_eq!(findings(&home), missing);
    let aside = home.file(&format!(".worldshim/damaged/{}", shared.hex()));
    assert_eq!(fs::read(&aside).unwrap(), b"Shared");
    publish(&home.store, &["shared", "one"], Some("one"));
    home.store.gc(&Default::default()).unwrap();
    assert_eq!(findings(&home), []);
    assert!(aside.exists());
    let lease = home.store.lease().unwrap();
    lease.hold_world(&one).unwrap();
    assert_eq!(home.store.read(&shared, 10).unwrap(), b"shared");
    // Also where it is no file.
    fs::remove_file(home.blob(&shared)).unwrap();
    symlink("/etc/passwd", home.blob(&shared)).unwrap();
    assert!(home.store.set_aside(&shared).unwrap());
    let lease = home.store.lease().unwrap();
    assert!(lease.put(b"shared").unwrap().new);
}
