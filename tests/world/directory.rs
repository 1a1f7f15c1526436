use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};

use worldshim::ErrorKind;
use worldshim::digest::Digest;
use worldshim::world::directory::{WorldDirWriter, remove_unfinished};
use worldshim::world::follow::ImageHasher;
use worldshim::world::manifest::{Part, PartKind};
use worldshim::world::verify::{Verified, verify, verify_again};

use crate::common::{self, world};

#[test]
fn a_world_is_written_and_verifies() {
    let (_temp, path, host) = world();
    let before = common::look(&path);
    let verified = verify(&path, &host).unwrap();
    assert!(verified.warnings.is_empty(), "{:?}", verified.warnings);
    assert_eq!(verified.manifest.parts.len(), 4);
    let processes = verified.manifest.need_part(PartKind::Processes).unwrap();
    assert_eq!(processes.files.len(), 3);
    assert_eq!(processes.size(), 300_022);
    let env = &verified.manifest.need_part(PartKind::Env).unwrap().files[0];
    assert_eq!(verified.read(env, 100).unwrap(), b"{}");
    assert!(verified.read(env, 1).is_err());
    verified.recheck().unwrap();
    assert_eq!(common::look(&path), before);
}

#[test]
fn a_world_is_private() {
    let (_temp, path, _) = world();
    assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o700);
    for entry in path.read_dir().unwrap() {
        let meta = entry.unwrap().metadata().unwrap();
        assert_eq!(meta.mode() & 0o7777, 0o600);
    }
}

#[test]
fn a_writer_that_does_not_commit_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let made = temp.path().join("made");
    let writer = WorldDirWriter::create(&made).unwrap();
    writer.write("env.json", b"{}").unwrap();
    std::fs::write(made.join("pages-1.img"), b"x").unwrap();
    drop(writer);
    assert!(!made.exists());
    // One that was there stays, empty, as containerd made it.
    let given = temp.path().join("given");
    std::fs::create_dir(&given).unwrap();
    let writer = WorldDirWriter::create(&given).unwrap();
    writer.write("env.json", b"{}").unwrap();
    drop(writer);
    assert_eq!(given.read_dir().unwrap().count(), 0);
}

#[test]
fn a_commit_of_what_is_not_there_fails_and_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("world");
    let host = common::host();
    for case in ["stray", "missing", "grown", "fifo"] {
        let writer = WorldDirWriter::create(&path).unwrap();
        let env = writer.write("env.json", b"{}").unwrap();
        let mut manifest = common::manifest(&host);
        manifest.parts = vec![Part::new(PartKind::Env, vec![env])];
        match case {
            "stray" => std::fs::write(path.join("spec.json"), b"x").unwrap(),
            "missing" => std::fs::remove_file(path.join("env.json")).unwrap(),
            "grown" => std::fs::write(path.join("env.json"), b"{ }").unwrap(),
            _ => mkfifo(&path.join("fifo")),
        }
        writer.commit(&manifest, false).unwrap_err();
        assert!(!path.exists(), "{case}");
    }
}

pub fn mkfifo(path: &std::path::Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
}

#[test]
fn a_directory_in_use_is_not_touched() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("precious"), b"x").unwrap();
    let error = WorldDirWriter::create(temp.path()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(temp.path().join("precious").exists());

    let path = temp.path().join("world");
    let writer = WorldDirWriter::create(&path).unwrap();
    writer.write("env.json", b"{}").unwrap();
    let error = WorldDirWriter::create(&path).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::WrongState);
    assert!(path.join("env.json").exists());

    let error = WorldDirWriter::create(&temp.path().join("a/b"))
        .err()
        .unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = WorldDirWriter::create(&temp.path().join("precious"))
        .err()
        .unwrap();
    assert!(error.to_string().contains("precious"));
}

/// As after a SIGKILL: the files are there, the lock is gone.
#[test]
fn what_a_killed_writer_left_can_be_removed_or_written_over() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("world");
    let leave = || {
        std::fs::write(path.join("world.json.unfinished"), b"").unwrap();
        std::fs::write(path.join("pages-1.img"), b"secret").unwrap();
    };
    let writer = WorldDirWriter::create(&path).unwrap();
    let error = remove_unfinished(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongState, "its writer lives");
    assert!(path.join("world.json.unfinished").exists());
    drop(writer);

    std::fs::create_dir(&path).unwrap();
    leave();
    assert!(remove_unfinished(&path).unwrap());
    assert_eq!(path.read_dir().unwrap().count(), 0);
    assert!(!remove_unfinished(&path).unwrap());

    leave();
    let writer = WorldDirWriter::create(&path).unwrap();
    assert!(!path.join("pages-1.img").exists());
    drop(writer);

    common::write_world(&path, &common::host());
    assert!(!remove_unfinished(&path).unwrap(), "a whole world stays");
    verify(&path, &common::host()).unwrap();
    std::fs::write(temp.path().join("precious"), b"").unwrap();
    assert!(!remove_unfinished(temp.path()).unwrap());
    assert!(temp.path().join("precious").exists());
}

#[test]
fn names_of_parts_cannot_leave_the_directory_or_collide() {
    let temp = tempfile::tempdir().unwrap();
    let writer = WorldDirWriter::create(&temp.path().join("world")).unwrap();
    assert!(writer.file("../escape").is_err());
    assert!(writer.file("a/b").is_err());
    writer.file("rootfs.tar").unwrap();
    let error = writer.file("rootfs.tar").err().unwrap();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
}

#[test]
fn logs_of_criu_are_not_part_of_a_world() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("world");
    let host = common::host();
    let writer = WorldDirWriter::create(&path).unwrap();
    let env = writer.write("env.json", b"{}").unwrap();
    std::fs::write(path.join("dump.log"), b"log").unwrap();
    let mut manifest = common::manifest(&host);
    manifest.parts = vec![Part::new(PartKind::Env, vec![env])];
    writer.commit(&manifest, true).unwrap();
    assert!(!path.join("dump.log").exists());
    // CRIU writes one at restore where it has no other place.
    std::fs::write(path.join("restore.log"), b"log").unwrap();
    verify(&path, &host).unwrap();
}

/// What CRIU does: pages files one after another, appended in pieces, while we follow.
#[test]
fn images_are_hashed_while_they_are_written() {
    let temp = tempfile::tempdir().unwrap();
    let dir = std::fs::File::open(temp.path()).unwrap();
    let hasher = ImageHasher::start(dir.as_fd()).unwrap();
    let over = AtomicBool::new(false);
    let write = |name: &str, pieces: usize| {
        use std::io::Write;
        let mut file = std::fs::File::create(temp.path().join(name)).unwrap();
        for piece in 0..pieces {
            file.write_all(&vec![piece as u8; 10_000 + piece]).unwrap();
            std::thread::sleep(std::time::Duration::from_micros(300));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                std::fs::write(temp.path().join("other.txt"), b"not an image").unwrap();
                std::thread::yield_now();
            }
        });
        for (id, pieces) in [(1, 30), (2, 0), (3, 1), (4, 60)] {
            write(&format!("core-{id}.img"), 1);
            write(&format!("pages-{id}.img"), pieces);
        }
        // The follower has moved on from this one; it grows nevertheless.
        let mut first = std::fs::File::options()
            .append(true)
            .open(temp.path().join("pages-1.img"))
            .unwrap();
        std::io::Write::write_all(&mut first, b"late").unwrap();
        over.store(true, Ordering::Relaxed);
    });
    let files = hasher.finish().unwrap();
    assert_eq!(files.len(), 8);
    for file in files {
        let bytes = std::fs::read(temp.path().join(file.name.as_str())).unwrap();
        assert!(file.is_bytes(&bytes), "{}", file.name);
        let is_memory = file.name.as_str().starts_with("pages-");
        assert_eq!(file.piece_size.is_some(), is_memory, "{}", file.name);
    }
}

#[test]
fn an_image_that_shrinks_while_followed_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let dir = std::fs::File::open(temp.path()).unwrap();
    let pages = temp.path().join("pages-1.img");
    std::fs::write(&pages, vec![1; 100_000]).unwrap();
    let hasher = ImageHasher::start(dir.as_fd()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    std::fs::write(&pages, b"short").unwrap();
    let error = hasher.finish().unwrap_err();
    assert!(error.to_string().contains("pages-1.img"), "{error}");
}

#[test]
fn what_changes_after_the_verification_is_noticed() {
    type Change = fn(&std::path::Path);
    let changes: [Change; 4] = [
        |file| std::fs::write(file, vec![0x5a; 300_000]).unwrap(),
        |file| {
            let copy = file.with_extension("copy");
            std::fs::copy(file, &copy).unwrap();
            std::fs::rename(&copy, file).unwrap();
        },
        |file| std::fs::remove_file(file).unwrap(),
        |file| {
            let other = file.with_extension("other");
            std::fs::rename(file, &other).unwrap();
            std::os::unix::fs::symlink(&other, file).unwrap();
        },
    ];
    for change in changes {
        let (_temp, path, host) = world();
        let verified = verify(&path, &host).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(10));
        change(&path.join("pages-1.img"));
        let error = verified.recheck().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CorruptWorld, "{error}");
        assert!(error.to_string().contains("pages-1.img"), "{error}");
    }
}

#[test]
fn a_world_that_is_not_there_is_not_found() {
    let (_temp, path, host) = world();
    let error = verify(&path.join("nothing"), &host).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

/// A restore verifies in Create and again, in another process, in Start.
#[test]
fn a_second_verification_trusts_only_what_is_the_same() {
    let (_temp, path, host) = world();
    let known = verify(&path, &host).unwrap().verified();
    let told = serde_json::to_string(&known).unwrap();
    let known: Verified = serde_json::from_str(&told).unwrap();
    verify_again(&path, &host, &known).unwrap();

    // The same bytes in a new file are looked at again, other bytes are found.
    let pages = path.join("pages-1.img");
    let copy = path.with_extension("copy");
    std::fs::copy(&pages, &copy).unwrap();
    std::fs::rename(&copy, &pages).unwrap();
    verify_again(&path, &host, &known).unwrap();
    let mut bytes = std::fs::read(&pages).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&pages, bytes).unwrap();
    let error = verify_again(&path, &host, &known).unwrap_err();
    assert!(
        error.to_string().contains("pages-1.img is damaged"),
        "{error}"
    );
}

/// Known files do not help a manifest that was exchanged for another.
#[test]
fn a_second_verification_does_not_trust_another_manifest() {
    let (_temp, path, host) = world();
    let known = verify(&path, &host).unwrap().verified();
    let manifest = path.join("world.json");
    let mut value: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&manifest).unwrap()).unwrap();
    value["parts"][0]["files"][0]["sha256"] = Digest::of(b"else").to_string().into();
    std::fs::write(&manifest, common::resealed(value)).unwrap();
    let error = verify_again(&path, &host, &known).unwrap_err();
    assert!(error.to_string().contains("env.json is damaged"), "{error}");
}
