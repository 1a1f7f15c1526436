//! Layers of containers that live on a real overlay: unpacked by GNU tar and
//! mounted by the kernel on the image, as containerd does, they show the
//! container's files; merged, they are each world's `rootfs.tar`.

use crate::interop::{run, write_image};
use crate::scratch::{Overlay, scratch, upper};
use crate::snapshot::{self, Snapshot, What};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, mknodat};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use worldshim::digest::hash_file;
use worldshim::world::rootfs::capture;
use worldshim::world::rootfs::layers::{Expected, Outcome, merge, write_delta, write_full};

#[derive(Debug, Clone)]
struct Edit {
    what: u8,
    place: Index,
    other: Index,
    name: u8,
}

fn lives() -> impl Strategy<Value = Vec<Vec<Edit>>> {
    let edit = (0u8..10, any::<Index>(), any::<Index>(), 0u8..4);
    let edit = edit.prop_map(|(what, place, other, name)| Edit {
        what,
        place,
        other,
        name,
    });
    vec(vec(edit, 1..12), 2..6)
}

/// Directories and other names in a tree, outermost first.
fn names(root: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut dirs, mut others) = (Vec::new(), Vec::new());
    for (path, node) in snapshot::of(root) {
        let path = root.join(OsStr::from_bytes(&path));
        match node.what {
            What::Directory => dirs.push(path),
            _ => others.push(path),
        }
    }
    (dirs, others)
}

/// Does one thing, or nothing where the kernel says no.
fn edit(root: &Path, edit: &Edit, count: usize) {
    let (dirs, others) = names(root);
    let dir = edit.place.get(&dirs);
    let new = dir.join(["a", "b", "a.", "deep"][usize::from(edit.name)]);
    let inner = edit.other.get(&dirs);
    let old = (!others.is_empty()).then(|| edit.other.get(&others));
    match (edit.what, old) {
        (0 | 1, _) if !new.exists() => drop(fs::write(&new, format!("text {count}"))),
        (2, _) => drop(fs::create_dir(&new)),
        (3, Some(old)) if old.is_file() => {
            let file = File::options().write(true).open(old).unwrap();
            file.write_all_at(&[count as u8], (count as u64 % 3) * 8192)
                .unwrap();
        }
        (4, Some(old)) => drop(fs::hard_link(old, &new)),
        (5, Some(old)) => drop(fs::rename(old, &new)),
        (6, _) if inner != root && !new.starts_with(inner) => drop(fs::rename(inner, &new)),
        (7, Some(old)) => fs::remove_file(old).unwrap(),
        (8, _) if inner != root => fs::remove_dir_all(inner).unwrap(),
        (9, _) => {
            drop(symlink("somewhere", &new));
            let mode = fs::Permissions::from_mode(0o700 | u32::from(edit.name));
            fs::set_permissions(inner, mode).unwrap();
        }
        _ => {}
    }
}

fn make_image(lower: &Path) {
    for dir in ["a/a/b", "a/deep", "b/a", "deep"] {
        fs::create_dir_all(lower.join(dir)).unwrap();
    }
    for file in ["a/b", "a/a/a", "b/b", "a.", "deep/a", "deep/a."] {
        fs::write(lower.join(file), file).unwrap();
    }
}

/// Unpacks a layer as containerd does for overlayfs.
fn unpack(layer: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    run(Command::new("tar")
        .args(["--numeric-owner", "--xattrs", "--xattrs-include=*"])
        .args(["--delay-directory-restore", "--zstd", "-xpf"])
        .arg(layer)
        .arg("-C")
        .arg(to));
    for (path, _) in snapshot::of(to) {
        let path = to.join(OsStr::from_bytes(&path));
        let Some(name) = path.file_name().and_then(OsStr::to_str) else {
            continue;
        };
        let dir = path.parent().unwrap();
        let time = fs::metadata(dir).unwrap().modified().unwrap();
        if name == ".wh..wh..opq" {
            fs::remove_file(&path).unwrap();
            lsetxattr(dir, "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
        } else if let Some(hidden) = name.strip_prefix(".wh.") {
            fs::remove_file(&path).unwrap();
            let hidden = dir.join(hidden);
            mknodat(CWD, &hidden, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        }
        File::open(dir).unwrap().set_modified(time).unwrap();
    }
}

/// What the image and these unpacked layers show, the lowest first.
fn shown(base: &Path, layers: &[PathBuf]) -> Snapshot {
    let at = base.join("shown");
    fs::create_dir_all(&at).unwrap();
    let mut lowers: Vec<_> = layers.iter().rev().collect();
    let image = base.join("lower");
    lowers.push(&image);
    let lowers: Vec<_> = lowers
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let options = CString::new(format!("lowerdir={}", lowers.join(":"))).unwrap();
    mount(
        "overlay",
        &at,
        "overlay",
        MountFlags::RDONLY,
        options.as_c_str(),
    )
    .expect("mount");
    let seen = snapshot::of(&at);
    unmount(&at, UnmountFlags::DETACH).unwrap();
    seen
}

/// GNU tar fills some holes, which is nothing a container sees.
fn without_accidents(mut seen: Snapshot) -> Snapshot {
    for node in seen.values_mut() {
        if let What::File { stretches, .. } = &mut node.what {
            stretches.clear();
        }
    }
    seen
}

/// Makes the layers of the next world: a delta if that will do.
fn next_layers(
    base: &Path,
    tar: &File,
    expected: &Expected,
    layers: &mut Vec<PathBuf>,
) -> Option<Outcome> {
    let number = fs::read_dir(base).unwrap().count();
    let path = base.join(format!("layer{number}"));
    let mut out = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    let mut parents = open(layers);
    let outcome = match parents.is_empty() {
        true => None,
        false => Some(write_delta(tar, expected, &mut parents, &mut out).unwrap()),
    };
    match outcome {
        Some(Outcome::Unchanged) => return outcome,
        Some(Outcome::Delta { onto, .. }) => layers.truncate(onto),
        Some(Outcome::NeedsFull(_)) | None => {
            layers.clear();
            write_full(tar, expected, File::create(&path).unwrap()).unwrap();
        }
    }
    layers.push(path);
    outcome
}

fn open(layers: &[PathBuf]) -> Vec<File> {
    let open = |path: &PathBuf| File::open(path).unwrap();
    layers.iter().map(open).collect()
}

/// Lets a container live and be checkpointed; gives how many deltas there were.
fn live(lives: &[Vec<Edit>]) -> usize {
    let dir = scratch();
    let base = dir.path();
    make_image(&base.join("lower"));
    // More than all the rest, so that a delta pays.
    let overlay = Overlay::mount(base, "");
    fs::write(overlay.merged.join("ballast"), vec![1; 200_000]).unwrap();
    let mut layers = Vec::new();
    let mut deltas = 0;
    for (number, life) in lives.iter().enumerate() {
        for (count, one) in life.iter().enumerate() {
            edit(&overlay.merged, one, number * 50 + count);
        }
        let outcome = checkpoint(base, &mut layers);
        deltas += usize::from(matches!(outcome, Some(Outcome::Delta { .. })));

        let unpacked: Vec<_> = (0..layers.len())
            .map(|n| base.join(format!("of{n}")))
            .collect();
        for (layer, to) in layers.iter().zip(&unpacked) {
            unpack(layer, to);
        }
        same(shown(base, &unpacked), snapshot::of(&overlay.merged));
        unpacked
            .iter()
            .for_each(|to| fs::remove_dir_all(to).unwrap());
    }
    deltas
}

#[test]
fn layers_of_a_real_container_show_its_files_to_every_runtime() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut deltas = 0;
    for _ in 0..30 {
        deltas += live(&lives().new_tree(&mut runner).unwrap().current());
    }
    assert!(deltas > 50, "only {deltas} delta layers");
}

/// The image's files as a layer, by GNU tar.
fn image_layer(base: &Path) -> Vec<u8> {
    let tar = base.join("image.tar");
    run(Command::new("tar")
        .args(["--format=posix", "--numeric-owner", "-cf"])
        .arg(&tar)
        .arg("-C")
        .arg(base.join("lower"))
        .arg("."));
    fs::read(tar).unwrap()
}

/// The uncompressed tar's SHA-256 of a layer.
fn diff_id(layer: &[u8]) -> String {
    snapshot::sha256(&zstd::decode_all(layer).unwrap())
}

#[test]
fn containerd_makes_the_container_of_the_image_and_its_layers() {
    assert!(
        std::env::var_os("WORLDSHIM_LAB").is_some(),
        "needs containerd: run the tests in the lab (make test-lab)"
    );
    let dir = scratch();
    let base = dir.path();
    make_image(&base.join("lower"));
    let overlay = Overlay::mount(base, "");
    let at = |name: &str| overlay.merged.join(name);
    let mut layers = Vec::new();
    fs::write(at("ballast"), vec![1; 200_000]).unwrap();
    fs::write(at("a/new"), "one").unwrap();
    fs::hard_link(at("a/new"), at("link")).unwrap();
    checkpoint(base, &mut layers);
    // Deleted in the image, deleted above it, made anew, changed, replaced.
    fs::remove_dir_all(at("a/a")).unwrap();
    fs::remove_file(at("a/b")).unwrap();
    fs::remove_dir_all(at("deep")).unwrap();
    fs::create_dir(at("deep")).unwrap();
    fs::write(at("deep/x"), "two").unwrap();
    fs::write(at("a/new"), "two").unwrap();
    fs::rename(at("b/b"), at("b/c")).unwrap();
    checkpoint(base, &mut layers);
    fs::remove_file(at("deep/x")).unwrap();
    fs::remove_file(at("link")).unwrap();
    fs::create_dir(at("link")).unwrap();
    checkpoint(base, &mut layers);
    assert_eq!(layers.len(), 3, "two deltas");

    let image = image_layer(base);
    let mut all = vec![("tar", image.clone(), snapshot::sha256(&image))];
    for layer in &layers {
        let bytes = fs::read(layer).unwrap();
        let id = diff_id(&bytes);
        all.push(("tar+zstd", bytes, id));
    }
    write_image(base, &all);
    let script = format!(
        "set -e; cd {}; tar -cf both.tar -C image .
         ctr images import --snapshotter overlayfs both.tar
         mkdir shown; ctr images mount localhost/layer:latest shown",
        base.display()
    );
    run(Command::new("sh").args(["-c", &script]));
    let found = snapshot::of(&base.join("shown"));
    unmount(base.join("shown"), UnmountFlags::DETACH).unwrap();
    same(found, snapshot::of(&overlay.merged));
}

/// Captures the container and makes its layers.
fn checkpoint(base: &Path, layers: &mut Vec<PathBuf>) -> Option<Outcome> {
    let tar = base.join("rootfs.tar");
    capture(&upper(&base.join("upper")), File::create(&tar).unwrap()).unwrap();
    let tar = File::open(&tar).unwrap();
    let (sha256, size) = hash_file(&tar, "rootfs.tar").unwrap();
    let expected = Expected { size, sha256 };
    let outcome = next_layers(base, &tar, &expected, layers);
    merge(&mut open(layers), &expected, std::io::sink()).unwrap();
    outcome
}

/// Both are the same to a process, but for the root's own time, which is
/// containerd's.
fn same(found: Snapshot, wanted: Snapshot) {
    let [mut found, mut wanted] = [found, wanted].map(without_accidents);
    for seen in [&mut found, &mut wanted] {
        seen.get_mut(&b""[..]).unwrap().mtime = (0, 0);
    }
    for (path, node) in &wanted {
        assert_eq!(found.get(path), Some(node), "{}", path.escape_ascii());
    }
    assert_eq!(found.len(), wanted.len());
}

/// Bytes of memory that a process of its own may take to make layers of files
/// that are much larger.
const LITTLE: u64 = 48 << 20;

#[test]
fn large_files_take_little_memory() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Data);
    if limit.current == Some(LITTLE) {
        return layers_of_large_files();
    }
    let this = std::env::current_exe().unwrap();
    let output = Command::new("prlimit")
        .arg(format!("--data={LITTLE}"))
        .arg(this)
        .args([
            "--exact",
            "layers::large_files_take_little_memory",
            "--test-threads=1",
        ])
        .output()
        .expect("run prlimit");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && told.contains("1 passed"),
        "{told}"
    );
}

fn layers_of_large_files() {
    let dir = scratch();
    let base = dir.path();
    let from = base.join("from");
    fs::create_dir(&from).unwrap();
    let write = |name: &str, seed: usize, mebibytes: usize| {
        let mut file = File::create(from.join(name)).unwrap();
        for number in 0..mebibytes {
            let chunk: Vec<u8> = (0..1 << 20)
                .map(|at| ((at * (number + seed)) >> 7) as u8)
                .collect();
            file.write_all(&chunk).unwrap();
        }
    };
    write("same", 1, 128);
    write("changed", 2, 64);
    let archive = |name: &str| {
        capture(&upper(&from), File::create(base.join(name)).unwrap()).unwrap();
        let tar = File::open(base.join(name)).unwrap();
        let (sha256, size) = hash_file(&tar, name).unwrap();
        (tar, Expected { size, sha256 })
    };
    let (first, expected) = archive("first.tar");
    let mut layers = Vec::new();
    next_layers(base, &first, &expected, &mut layers);
    write("changed", 3, 64);
    let (second, expected) = archive("second.tar");
    let outcome = next_layers(base, &second, &expected, &mut layers);
    assert!(
        matches!(outcome, Some(Outcome::Delta { .. })),
        "{outcome:?}"
    );
}
