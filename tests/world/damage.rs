//! The damage matrix: whatever is done to a world, verification gives exactly one clear
//! error of the right kind and changes nothing on the disk.
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use serde_json::Value;
use worldshim::ErrorKind::{self, CorruptWorld, ForeignWorld};
use worldshim::world::host::HostFacts;
use worldshim::world::verify::verify;

use crate::common::{look, resealed, world};
use crate::directory::mkfifo;

const FILES: [&str; 7] = [
    "empty.img",
    "env.json",
    "inventory.img",
    "pages-1.img",
    "rootfs.tar",
    "spec.json",
    "world.json",
];

/// Verifies and demands one error that names `words`, with nothing changed.
fn refuse(path: &Path, host: &HostFacts, kind: ErrorKind, words: &str, case: &str) {
    let before = look(path);
    let error = verify(path, host).expect_err(case);
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{case}: {text}");
    assert!(text.contains(words), "{case}: {text}");
    assert!(text.contains(&path.display().to_string()), "{case}: {text}");
    assert!(!text.contains('\n') && text.len() < 1000, "{case}: {text}");
    assert_eq!(look(path), before, "{case}: something changed on the disk");
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let (_temp, path, host) = world();
    for name in FILES {
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(path.join(name))
            .unwrap();
        let size = file.metadata().unwrap().len();
        let bit = name.len() % 8;
        for at in (0..size)
            .step_by((size as usize / 24).max(1))
            .chain(size.checked_sub(1))
        {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
            let case = format!("byte {at} of {name}");
            refuse(&path, &host, CorruptWorld, name, &case);
            file.write_all_at(&byte, at).unwrap();
        }
    }
    verify(&path, &host).unwrap();
}

#[test]
fn cut_and_grown_files_are_found() {
    for name in FILES {
        let (_temp, path, host) = world();
        let whole = std::fs::read(path.join(name)).unwrap();
        for size in [
            0,
            1,
            whole.len() / 2,
            whole.len().saturating_sub(1),
            whole.len() + 1,
        ] {
            if size == whole.len() {
                continue;
            }
            let mut changed = whole.clone();
            changed.resize(size, b'}');
            std::fs::write(path.join(name), changed).unwrap();
            refuse(
                &path,
                &host,
                CorruptWorld,
                name,
                &format!("{name} of {size} bytes"),
            );
        }
    }
}

#[test]
fn missing_files_are_found() {
    for name in FILES {
        let (_temp, path, host) = world();
        std::fs::remove_file(path.join(name)).unwrap();
        refuse(&path, &host, CorruptWorld, name, &format!("{name} removed"));
    }
}

#[test]
fn swapped_files_are_found() {
    let (_temp, path, host) = world();
    std::fs::rename(path.join("spec.json"), path.join("x")).unwrap();
    std::fs::rename(path.join("env.json"), path.join("spec.json")).unwrap();
    std::fs::rename(path.join("x"), path.join("env.json")).unwrap();
    refuse(
        &path,
        &host,
        CorruptWorld,
        "env.json",
        "env and spec swapped",
    );
}

#[test]
fn foreign_entries_are_found() {
    type Add = fn(&Path);
    let cases: [(&str, Add); 7] = [
        ("pages-2.img", |path| std::fs::write(path, b"x").unwrap()),
        (".hidden", |path| std::fs::write(path, b"").unwrap()),
        ("descriptors.json", |path| {
            std::fs::write(path, b"[]").unwrap()
        }),
        ("parent", |path| symlink("/tmp", path).unwrap()),
        ("sub", |path| std::fs::create_dir(path).unwrap()),
        ("pipe", mkfifo),
        ("dump.log", |path| symlink("/etc/passwd", path).unwrap()),
    ];
    for (name, add) in cases {
        let (_temp, path, host) = world();
        add(&path.join(name));
        refuse(&path, &host, CorruptWorld, name, name);
    }
    let (_temp, path, host) = world();
    use std::os::unix::ffi::OsStrExt;
    std::fs::write(path.join(std::ffi::OsStr::from_bytes(b"x\xff\x1b[2J")), b"").unwrap();
    refuse(
        &path,
        &host,
        CorruptWorld,
        "x\\xff\\x1b[2J",
        "a name of raw bytes",
    );
}

/// Each file in turn becomes something else; none of it may be followed or block.
#[test]
fn files_replaced_by_something_else_are_found() {
    type Put = fn(&Path, &Path);
    let cases: [(&str, Put); 6] = [
        ("a symbolic link", |path, same| symlink(same, path).unwrap()),
        ("a symbolic link", |path, _| {
            symlink("/dev/zero", path).unwrap()
        }),
        ("a directory", |path, _| std::fs::create_dir(path).unwrap()),
        ("a fifo", |path, _| mkfifo(path)),
        ("a socket", |path, _| {
            drop(std::os::unix::net::UnixListener::bind(path).unwrap())
        }),
        ("a device", |path, _| {
            use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
            mknodat(
                CWD,
                path,
                FileType::CharacterDevice,
                Mode::RWXU,
                makedev(1, 5),
            )
            .unwrap();
        }),
    ];
    for name in FILES {
        for (what, put) in cases {
            let (temp, path, host) = world();
            let moved = temp.path().join("moved");
            std::fs::rename(path.join(name), &moved).unwrap();
            put(&path.join(name), &moved);
            refuse(
                &path,
                &host,
                CorruptWorld,
                &format!("{name} is {what}"),
                name,
            );
        }
    }
}

/// `world.json` changed by a hand that knows JSON, and by one that makes the digests fit.
#[test]
fn manifests_that_lie_are_found() {
    type Change = fn(&mut Value);
    let cases: [(ErrorKind, &str, Change); 16] = [
        (ForeignWorld, "format 2 is newer", |m| {
            m["format"] = 2.into()
        }),
        (ForeignWorld, "made on \"riscv64\"", |m| {
            m["host"]["arch"] = "riscv64".into()
        }),
        (ForeignWorld, "avx1024", |m| {
            m["host"]["cpuFeatures"]
                .as_array_mut()
                .unwrap()
                .push("avx1024".into());
        }),
        (ForeignWorld, "install CRIU 4.2 or newer", |m| {
            m["host"]["criu"] = "4.2".into()
        }),
        (ForeignWorld, "install CRIU 5.0 or newer", |m| {
            m["host"]["criu"] = "5.0.1".into()
        }),
        (CorruptWorld, "env.json is 2 bytes", |m| {
            file(m, "env")["size"] = 3.into()
        }),
        (CorruptWorld, "pages-1.img is 300000 bytes", |m| {
            m["parts"][1]["files"][2]["size"] = (1u64 << 62).into();
        }),
        (CorruptWorld, "env.json is damaged", |m| {
            file(m, "env")["sha256"] = format!("sha256:{}", "1".repeat(64)).into();
        }),
        (CorruptWorld, "env.json is hashed in pieces", |m| {
            file(m, "env")["pieceSize"] = 4_194_304.into()
        }),
        (CorruptWorld, "hashed in pieces, which only", |m| {
            m["parts"][1]["files"][2]["pieceSize"] = 4_194_305.into()
        }),
        (CorruptWorld, "env2.json is missing", |m| {
            file(m, "env")["name"] = "env2.json".into()
        }),
        (CorruptWorld, "listed twice", |m| {
            file(m, "env")["name"] = "spec.json".into()
        }),
        (CorruptWorld, "starts with '.'", |m| {
            file(m, "env")["name"] = "../../../../etc/passwd".into();
        }),
        (CorruptWorld, "characters other", |m| {
            file(m, "env")["name"] = "/etc/passwd".into()
        }),
        (CorruptWorld, "does not belong", |m| {
            drop(m["parts"].as_array_mut().unwrap().remove(0))
        }),
        (CorruptWorld, "nested deeper", |m| {
            m["container"] = (0..100).fold(Value::Null, |inner, _| serde_json::json!([inner]));
        }),
    ];
    for (kind, words, change) in cases {
        let (_temp, path, host) = world();
        let manifest = path.join("world.json");
        let mut value: Value = serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
        change(&mut value);
        std::fs::write(&manifest, resealed(value)).unwrap();
        refuse(&path, &host, kind, words, words);
    }
}

/// The only file of a part.
fn file<'a>(manifest: &'a mut Value, part: &str) -> &'a mut Value {
    let parts = manifest["parts"].as_array_mut().unwrap();
    let part = parts.iter_mut().find(|p| p["name"] == part).unwrap();
    &mut part["files"][0]
}

#[test]
fn deep_json_does_not_exhaust_the_stack() {
    for open in ["[", "{\"a\":"] {
        let (_temp, path, host) = world();
        std::fs::write(path.join("world.json"), open.repeat(1_000_000)).unwrap();
        refuse(&path, &host, CorruptWorld, "nested deeper", open);
    }
    let (_temp, path, host) = world();
    let manifest = std::fs::File::create(path.join("world.json")).unwrap();
    manifest.set_len(1 << 40).unwrap();
    refuse(
        &path,
        &host,
        CorruptWorld,
        "are allowed",
        "a manifest of 1 TiB",
    );
}

#[test]
fn unlike_hosts_are_told_apart() {
    let (_temp, path, host) = world();
    let mut other = host.clone();
    other.criu = Some("4.2.1".into());
    other.kernel = "9.9".into();
    other.cpu_features.insert("avx1024".into());
    let verified = verify(&path, &other).unwrap();
    assert_eq!(verified.warnings.len(), 1, "{:?}", verified.warnings);
    // A patch release older than the dump's is worth a warning only.
    other = host.clone();
    other.criu = Some("4.1.0".into());
    assert_eq!(verify(&path, &other).unwrap().warnings.len(), 1);
    other.criu = Some("4.0.9".into());
    refuse(&path, &other, ForeignWorld, "older 4.0.9", "an older CRIU");
    other.criu = Some("unknown".into());
    assert_eq!(verify(&path, &other).unwrap().warnings.len(), 1);
    other.criu = None;
    verify(&path, &other).unwrap();
}

#[test]
fn checkpoints_of_others_and_unfinished_ones_are_told_apart() {
    let temp = tempfile::tempdir().unwrap();
    let host = crate::common::host();
    std::fs::write(temp.path().join("inventory.img"), b"x").unwrap();
    refuse(
        temp.path(),
        &host,
        CorruptWorld,
        "never finished",
        "unfinished",
    );
    std::fs::write(temp.path().join("descriptors.json"), b"[]").unwrap();
    refuse(
        temp.path(),
        &host,
        ForeignWorld,
        "another runtime",
        "by runc",
    );
}
