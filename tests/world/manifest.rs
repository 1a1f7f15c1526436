use std::collections::BTreeMap;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use serde_json::Value;
use time::OffsetDateTime;
use worldshim::ErrorKind;
use worldshim::digest::{Digest, PIECE};
use worldshim::world::file_name::FileName;
use worldshim::world::host::{CgroupMode, HostFacts};
use worldshim::world::manifest::*;
use worldshim::world::processes::{
    DumpParameters, ExternalMount, MountPurpose, Namespace, Place, StdioFile, TcpFacts,
};

use crate::common::resealed;

const GOLDEN: &[u8] = include_bytes!("../golden/world-v1/world.json");

#[test]
fn the_manifest_of_the_first_release_keeps_parsing() {
    let manifest = Manifest::parse(GOLDEN).unwrap();
    assert_eq!(manifest.format, 1);
    assert_eq!(manifest.container.id, "counter");
    assert_eq!(manifest.parts.len(), 4);
    assert_eq!(manifest.size(), 305_047);
    assert_eq!(manifest.times.frozen_ns, 65_000_000);
    assert_eq!(manifest.redacted[0].name, "DATABASE_URL");
    let text = String::from_utf8(manifest.to_bytes().unwrap()).unwrap();
    assert_eq!(
        text,
        String::from_utf8_lossy(GOLDEN),
        "it is no longer written the same"
    );
}

fn arb_file() -> impl Strategy<Value = PartFile> {
    (
        "[a-zA-Z0-9_][a-zA-Z0-9_-]{0,20}(\\.[a-z0-9]{1,5}){0,2}",
        any::<u32>(),
    )
        .prop_map(|(name, size)| PartFile {
            piece_size: None,
            sha256: Digest::of(name.as_bytes()),
            name: FileName::new(format!("x{name}")).unwrap(),
            size: size.into(),
        })
}

fn arb_parts() -> impl Strategy<Value = Vec<Part>> {
    vec(arb_file(), 4..30).prop_map(|mut files| {
        files.sort_by(|a, b| a.name.cmp(&b.name));
        files.dedup_by(|a, b| a.name == b.name);
        let mut parts = Vec::new();
        for kind in [PartKind::Env, PartKind::Rootfs, PartKind::Spec] {
            if files.len() > 1 {
                parts.push(Part::new(kind, vec![files.remove(0)]));
            }
        }
        files[0].piece_size = (files.len() > 2).then_some(PIECE);
        parts.insert(1, Part::new(PartKind::Processes, files));
        parts
    })
}

fn arb_host() -> impl Strategy<Value = HostFacts> {
    let mode = prop_oneof![
        Just(CgroupMode::V1),
        Just(CgroupMode::Hybrid),
        Just(CgroupMode::V2)
    ];
    let texts = (any::<String>(), any::<String>(), any::<String>());
    (
        texts,
        mode,
        btree_set(any::<String>(), 0..20),
        any::<Option<String>>(),
    )
        .prop_map(
            |((arch, cpu_model, kernel), cgroup, cpu_features, criu)| HostFacts {
                arch,
                cgroup,
                cpu_features,
                cpu_vendor: kernel.clone(),
                cpu_model,
                criu,
                kernel,
                worldshim: "0.1.0".into(),
            },
        )
}

fn arb_manifest() -> impl Strategy<Value = Manifest> {
    let identity = (
        any::<String>(),
        btree_map(any::<String>(), any::<String>(), 0..9),
    );
    let redacted = vec((any::<String>(), any::<String>()), 0..9);
    let times = (
        any::<u64>(),
        any::<u64>(),
        -62_000_000_000i64..253_000_000_000,
    );
    (
        arb_parts(),
        arb_host(),
        identity,
        redacted,
        times,
        any::<Option<u32>>(),
    )
        .prop_map(
            |(parts, host, (id, labels), redacted, (frozen_ns, total_ns, created), lowerdirs)| {
                Manifest {
                    checksum: Digest::default(),
                    base: lowerdirs.map(|lowerdirs| BaseLayers {
                        chain_id: None,
                        lowerdirs,
                        snapshotter: id.clone(),
                    }),
                    container: ContainerIdentity {
                        labels,
                        namespace: id.clone(),
                        runtime: id.clone(),
                        id: id.clone(),
                    },
                    created: OffsetDateTime::from_unix_timestamp(created).unwrap()
                        + time::Duration::nanoseconds((frozen_ns % 1_000_000_000) as i64),
                    dump: DumpParameters {
                        terminal: frozen_ns % 2 == 0,
                        stdio: vec![StdioFile {
                            fd: 2,
                            key: id.clone(),
                        }],
                        namespaces: vec![Namespace {
                            kind: id.clone(),
                            place: Place::Shared,
                            inode: total_ns,
                        }],
                        external_mounts: vec![ExternalMount {
                            point: id.clone().into(),
                            restrictions: vec![id.clone()],
                            purpose: MountPurpose::MaskedFile,
                        }],
                        tcp: TcpFacts {
                            inside: 1,
                            outside: 2,
                        },
                        file_locks: true,
                        external_unix: false,
                        hostname: lowerdirs.map(|_| id.clone()),
                    },
                    format: FORMAT,
                    host,
                    image: None,
                    kind: KIND.into(),
                    omitted: Vec::new(),
                    parts,
                    redacted: redacted
                        .into_iter()
                        .map(|(name, place)| Redaction { name, place })
                        .collect::<std::collections::BTreeSet<_>>()
                        .into_iter()
                        .collect(),
                    times: Times {
                        frozen_ns,
                        parts_ns: BTreeMap::from([("env".into(), total_ns)]),
                        total_ns,
                    },
                }
            },
        )
}

/// What a hostile hand may put anywhere.
fn arb_hostile() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(serde_json::json!(-1)),
        Just(serde_json::json!(u64::MAX)),
        Just(serde_json::json!(1e308)),
        Just(serde_json::json!("../../etc/passwd")),
        Just(serde_json::json!("a".repeat(40_000))),
        Just(serde_json::json!([[[[]]], {"a": {}}])),
        any::<String>().prop_map(Value::String),
        any::<i64>().prop_map(|n| serde_json::json!(n)),
        vec(any::<u8>(), 0..50).prop_map(|list| serde_json::json!(list)),
    ]
}

/// Replaces the `n`th value of a document, counted depth first.
fn replace(value: &mut Value, n: &mut usize, with: &Value) -> bool {
    if *n == 0 {
        *value = with.clone();
        return true;
    }
    *n -= 1;
    match value {
        Value::Array(items) => items.iter_mut().any(|item| replace(item, n, with)),
        Value::Object(fields) => fields.values_mut().any(|field| replace(field, n, with)),
        _ => false,
    }
}

fn must_be_refused_cleanly(bytes: &[u8]) {
    match Manifest::parse(bytes) {
        Ok(manifest) => {
            manifest.to_bytes().unwrap();
        }
        Err(error) => {
            let text = error.to_string();
            assert!(matches!(
                error.kind(),
                ErrorKind::CorruptWorld | ErrorKind::ForeignWorld
            ));
            assert!(text.starts_with("world.json"), "{text}");
            assert!(
                text.len() < 4000 && !text.contains(char::is_control),
                "{text}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_manifest_reads_as_it_is_written(manifest in arb_manifest()) {
        let bytes = manifest.to_bytes().unwrap();
        let read = Manifest::parse(&bytes).unwrap();
        prop_assert_eq!(&Manifest { checksum: Digest::default(), ..read.clone() }, &manifest);
        prop_assert_eq!(read.to_bytes().unwrap(), bytes);
    }

    #[test]
    fn flipped_and_cut_bytes_never_panic(
        edits in vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..6)
    ) {
        let mut bytes = GOLDEN.to_vec();
        for (index, byte, edit) in edits {
            let at = index.index(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
            match edit {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 if bytes.len() > 100 => drop(bytes.remove(at)),
                _ if bytes.len() > 100 => bytes.truncate(at.max(50)),
                _ => {}
            }
        }
        must_be_refused_cleanly(&bytes);
    }

    #[test]
    fn hostile_values_anywhere_never_panic(
        place in any::<prop::sample::Index>(), hostile in arb_hostile()
    ) {
        let mut value: Value = serde_json::from_slice(GOLDEN).unwrap();
        let mut n = place.index(120);
        replace(&mut value, &mut n, &hostile);
        must_be_refused_cleanly(&resealed(value));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
        must_be_refused_cleanly(&bytes);
    }
}

/// Every single bit of the file counts.
#[test]
fn a_flipped_bit_anywhere_is_found() {
    for at in 0..GOLDEN.len() {
        let mut bytes = GOLDEN.to_vec();
        bytes[at] ^= 1 << (at % 8);
        let error = Manifest::parse(&bytes).expect_err(&format!("byte {at}"));
        assert_eq!(error.kind(), ErrorKind::CorruptWorld, "byte {at}: {error}");
    }
}

/// The golden manifest with one change, and the error it gives.
fn refused(change: impl FnOnce(&mut Value)) -> worldshim::Error {
    let mut value: Value = serde_json::from_slice(GOLDEN).unwrap();
    change(&mut value);
    Manifest::parse(&resealed(value)).unwrap_err()
}

#[test]
fn each_fault_is_named_with_its_place() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 26] = [
        ("missing field `checksum`", |m| {
            drop(m.as_object_mut().unwrap().remove("checksum"))
        }),
        ("checksum", |m| m["checksum"] = 1.into()),
        ("unknown field `extra`", |m| m["extra"] = 1.into()),
        ("container.x: unknown field `x`", |m| {
            m["container"]["x"] = 1.into()
        }),
        ("missing field `parts`", |m| {
            drop(m.as_object_mut().unwrap().remove("parts"))
        }),
        ("format", |m| m["format"] = "1".into()),
        ("format: 0 was never", |m| m["format"] = 0.into()),
        ("format", |m| m["format"] = (-1).into()),
        ("dump.stdio[0].fd", |m| {
            m["dump"]["stdio"][0]["fd"] = 256.into()
        }),
        ("dump.tcp", |m| m["dump"]["tcp"] = Value::Null),
        ("kind: must be", |m| m["kind"] = "text/plain".into()),
        ("created", |m| m["created"] = "yesterday".into()),
        ("parts[0].kind", |m| {
            m["parts"][0]["kind"] = "browser".into()
        }),
        ("one env part", |m| m["parts"][0]["name"] = "other".into()),
        ("one env part", |m| {
            let part = m["parts"][0].clone();
            m["parts"].as_array_mut().unwrap().push(part);
        }),
        ("lists 0 files", |m| {
            m["parts"][0]["files"] = serde_json::json!([])
        }),
        ("lists 2 files", |m| {
            let mut file = m["parts"][2]["files"][0].clone();
            file["name"] = "rootfs2.tar".into();
            m["parts"][2]["files"].as_array_mut().unwrap().push(file);
        }),
        ("listed twice", |m| {
            m["parts"][0]["files"][0]["name"] = "spec.json".into()
        }),
        ("the manifest itself", |m| {
            m["parts"][0]["files"][0]["name"] = "world.json".into()
        }),
        ("contains '..'", |m| {
            m["parts"][1]["files"][1]["name"] = "a..b".into()
        }),
        ("starts with '.'", |m| {
            m["parts"][1]["files"][1]["name"] = "../x".into()
        }),
        ("parts[1].files[1].name", |m| {
            m["parts"][1]["files"][1]["name"] = "/etc/x".into()
        }),
        ("parts[1].files[0].sha256", |m| {
            m["parts"][1]["files"][0]["sha256"] = "md5:0".into()
        }),
        ("parts[1].files[0].size", |m| {
            m["parts"][1]["files"][0]["size"] = (-1).into()
        }),
        ("what a disk can hold", |m| {
            m["parts"][1]["files"][0]["size"] = u64::MAX.into()
        }),
        ("what a disk can hold", |m| {
            for file in m["parts"][1]["files"].as_array_mut().unwrap() {
                file["size"] = (i64::MAX).into();
            }
        }),
    ];
    for (words, change) in cases {
        let error = refused(change);
        assert_eq!(error.kind(), ErrorKind::CorruptWorld, "{words}: {error}");
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
}

#[test]
fn too_much_of_anything_is_refused() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 5] = [
        ("nested deeper", |m| {
            m["container"] = (0..200).fold(Value::Null, |inner, _| serde_json::json!([inner]));
        }),
        ("string of", |m| {
            m["container"]["id"] = "x".repeat(1 << 16).into()
        }),
        ("redacted: 65537", |m| {
            let one = serde_json::json!({"name": "", "place": ""});
            m["redacted"] = Value::Array(vec![one; 65_537]);
        }),
        ("files: 65540", |m| {
            let mut file = m["parts"][1]["files"][0].clone();
            let files = (0..65_537).map(|n| {
                file["name"] = format!("f{n}").into();
                file.clone()
            });
            m["parts"][1]["files"] = Value::Array(files.collect());
        }),
        ("16777216 are allowed", |m| {
            m["omitted"] = Value::Array(vec!["x".repeat(30_000).into(); 600]);
        }),
    ];
    for (words, change) in cases {
        let error = refused(change);
        assert_eq!(error.kind(), ErrorKind::CorruptWorld);
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
}

#[test]
fn a_newer_format_says_what_it_needs_whatever_else_it_has() {
    let error = refused(|m| {
        *m = serde_json::json!({"format": 7, "host": {"worldshim": "3.1.0", "new": []}, "new": {}});
    });
    assert_eq!(error.kind(), ErrorKind::ForeignWorld);
    assert!(
        error.to_string().contains("install worldshim 3.1.0"),
        "{error}"
    );
    let error = refused(|m| *m = serde_json::json!({"format": u64::MAX}));
    assert_eq!(error.kind(), ErrorKind::ForeignWorld);
    assert!(
        error.to_string().contains("install a newer worldshim"),
        "{error}"
    );
    let error = refused(|m| {
        *m = serde_json::json!({"format": 2, "host": {"worldshim": "\u{1b}[31m;rm -rf /"}});
    });
    assert!(!error.to_string().contains('\u{1b}'), "{error}");
}

/// `docs/format.md` shows the golden manifest and lists the built-in rules.
#[test]
fn the_document_says_what_the_code_does() {
    use worldshim::world::credential::{DENY_NAMES, HARMLESS_NAMES, TOKEN_PREFIXES};
    let document = include_str!("../../docs/format.md");
    let (_, example) = document.split_once("```json\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    assert_eq!(example.as_bytes(), GOLDEN);
    let prefixes = TOKEN_PREFIXES.iter().map(|(prefix, _)| *prefix);
    for rule in DENY_NAMES.into_iter().chain(HARMLESS_NAMES).chain(prefixes) {
        assert!(document.contains(&format!("`{rule}`")), "{rule} is missing");
    }
}
