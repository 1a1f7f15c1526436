//! Every form of a world as a file, out and in.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::verbs::World;
use crate::common::container::Container;
use crate::common::ctr;
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("every_form_gives_the_same_world_back", round_trips),
        shared("what_is_exported_is_private_and_not_overwritten", private),
        shared("a_world_directory_is_imported", directory),
        shared("a_rescued_directory_goes_into_the_store", rescued),
        shared("a_checkpoint_by_ctr_is_imported", by_ctr),
        shared("a_world_that_follows_another_is_imported", follows),
    ]
}

/// Another store of the same test.
pub fn store(test: &Test, name: &str) -> World {
    World {
        store: test.path(name),
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A container with a history: files made, changed and removed.
pub fn lived(test: &Test, name: &str) -> Container {
    let container = Container::counter(test, name, &[]);
    container.exec(&[
        "sh",
        "-c",
        "mkdir /made; echo kept >/made/file; rm /etc/passwd; ln /made/file /made/link",
    ]);
    container
}

fn round_trips(test: &Test) {
    let world = World::new(test);
    let container = lived(test, "a");
    let digest = world.checkpoint(&container.id, "x:1");
    let count = container.count();
    container.remove();
    for (number, options) in [
        &["--compress", "none"][..],
        &["--compress", "gzip"],
        &["--compress", "zstd"],
        &[],
        &["--as", "oci"],
    ]
    .into_iter()
    .enumerate()
    {
        let file = test.path(&format!("file{number}"));
        let mut words = vec!["export", "x:1", text(&file)];
        words.extend(options);
        let exported = world.json(&words);
        assert_eq!(exported["digest"], digest.as_str());
        let size = fs::metadata(&file).expect("the file").len();
        assert_eq!(exported["bytes"], size);

        let other = store(test, &format!("store{number}"));
        let imported = other.json(&["import", text(&file), "y:2"]);
        assert_eq!(imported["digest"], digest.as_str(), "{options:?}");
        assert_eq!(imported["name"], "y:2");
        assert_eq!(imported["bytes"], imported["new_bytes"]);
        other.sound();
        other.json(&["verify", "y:2"]);
        // Once more, into a store that has it.
        let again = other.json(&["import", text(&file)]);
        assert_eq!(again["digest"], digest.as_str());
        assert_eq!(again["new_bytes"], 0);
        other.sound();
        let id = test.id(&format!("b{number}"));
        other.json(&["restore", "y:2", "--id", &id]);
        let back = Container { id };
        back.goes_on_from(count - 2);
        assert_eq!(back.read("/made/link"), "kept");
        assert!(!back.path("/etc/passwd").exists());
        back.remove();
    }
}

fn private(test: &Test) {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new(test);
    let container = Container::counter(test, "a", &[]);
    world.checkpoint(&container.id, "x");
    let file = test.path("file");
    for form in ["checkpoint", "oci"] {
        fs::write(&file, "mine").expect("write");
        let said = world.refused(4, &["export", "x", text(&file), "--as", form]);
        assert!(said.contains("--force"), "{said}");
        assert_eq!(fs::read_to_string(&file).expect("read"), "mine");
        world.json(&["export", "x", text(&file), "--as", form, "--force"]);
        let mode = fs::metadata(&file).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    world.refused(
        2,
        &["export", "x", "f", "--as", "oci", "--compress", "zstd"],
    );
    world.refused(3, &["export", "none", text(&test.path("none"))]);
    world.refused(3, &["export", "x", text(&test.path("no/folder/file"))]);
    world.refused(3, &["import", text(&test.path("none"))]);
    let left: Vec<_> = fs::read_dir(&test.dir)
        .expect("list")
        .map(|entry| entry.expect("an entry").file_name())
        .filter(|name| name.to_string_lossy().starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

fn directory(test: &Test) {
    let world = World::new(test);
    let container = lived(test, "a");
    let path = container.checkpoint_to(test, "world");
    let imported = world.json(&["import", text(&path)]);
    assert_eq!(imported["form"], "directory");
    assert_eq!(imported["name"], format!("{}:latest", container.id));
    assert!(path.join("world.json").exists(), "it is left as it was");
    let id = test.id("b");
    let name = imported["name"].as_str().expect("a name");
    world.json(&["restore", name, "--id", &id]);
    Container { id }.goes_on_from(1);
    world.sound();

    let fresh = store(test, "fresh");
    let image = path.join("pages-1.img");
    let mut bytes = fs::read(&image).expect("pages");
    bytes[100] ^= 1;
    fs::write(&image, bytes).expect("write");
    let said = fresh.refused(6, &["import", text(&path)]);
    assert!(said.contains("pages-1.img"), "{said}");
    assert_eq!(fresh.json(&["ls"]), serde_json::json!([]));
}

/// What `world checkpoint --stop` leaves after a failure.
fn rescued(test: &Test) {
    let world = World::new(test);
    let container = Container::counter(test, "a", &[]);
    let path = container.checkpoint_to(test, "taken");
    let other = Container::counter(test, "c", &[]);
    world.checkpoint(&other.id, "other");
    for inside in ["", "world"] {
        let folder = world.store.join(".worldshim/rescued/checkpoint-x-1");
        private_folder(&folder);
        copy(&path, &folder.join("world"));
        let said = world.run(&["ls"]);
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.contains("world import"), "{said}");
        let imported = world.json(&["import", text(&folder.join(inside)), "saved"]);
        assert_eq!(imported["removed"], text(&folder));
        assert!(!folder.exists());
        assert!(world.run(&["ls"]).stderr.is_empty());
    }
    // One that is damaged stays.
    let folder = world.store.join(".worldshim/rescued/checkpoint-x-2");
    private_folder(&folder);
    copy(&path, &folder.join("world"));
    fs::remove_file(folder.join("world/env.json")).expect("remove");
    world.refused(6, &["import", text(&folder), "broken"]);
    assert!(folder.join("world/world.json").exists());
    fs::remove_dir_all(&folder).expect("remove");
    world.sound();
}

fn private_folder(path: &Path) {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(path);
    made.expect("a folder");
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.expect("run cp").success());
}

fn by_ctr(test: &Test) {
    let world = World::new(test);
    let container = lived(test, "a");
    let image = test.image("i");
    container.checkpoint(&image);
    let count = container.count();
    container.remove();
    let direct = world.json(&["import", &format!("ctr:{image}"), "direct"]);
    assert_eq!(direct["form"], "containerd");
    let file = test.path("image.tar");
    // `ctr` cannot make its manifest.json of what is no ordinary image.
    ctr::ok(&[
        "image",
        "export",
        "--skip-manifest-json",
        text(&file),
        &image,
    ]);
    let other = store(test, "other");
    let exported = other.json(&["import", text(&file), "exported"]);
    assert_eq!(exported["form"], "containerd");
    assert_eq!(exported["digest"], direct["digest"]);
    ctr::ok(&["image", "rm", &image]);
    for (world, name, id) in [(&world, "direct", "b"), (&other, "exported", "c")] {
        let id = test.id(id);
        world.json(&["restore", name, "--id", &id]);
        let back = Container { id };
        back.goes_on_from(count.saturating_sub(20));
        assert_eq!(back.read("/made/file"), "kept");
        assert!(!back.path("/etc/passwd").exists());
        world.sound();
    }
    let said = world.refused(3, &["import", "ctr:example.test/none:1"]);
    assert!(said.contains("example.test/none:1"), "{said}");
    let said = world.refused(7, &["import", &format!("ctr:{}", ctr::BUSYBOX)]);
    assert!(said.contains("no checkpoint"), "{said}");
}

/// A world with a parent has layers and packs of that one.
fn follows(test: &Test) {
    let world = World::new(test);
    let container = lived(test, "a");
    let first = world.checkpoint(&container.id, "x:1");
    let parent = test.path("parent");
    world.json(&["export", "x:1", text(&parent)]);
    container.exec(&["sh", "-c", "echo more >/made/more"]);
    let digest = world.checkpoint(&container.id, "x:2");
    let (layout, archive) = (test.path("oci.tar"), test.path("archive"));
    world.json(&["export", "x:2", text(&layout), "--as", "oci"]);
    world.json(&["export", "x:2", text(&archive)]);
    let other = store(test, "other");
    let imported = other.json(&["import", text(&layout)]);
    assert_eq!(imported["digest"], digest.as_str());
    assert_eq!(imported["name"], "x:2");
    assert!(imported["parent"].is_string());
    // The store has it: it is the same world.
    let imported = other.json(&["import", text(&archive), "same"]);
    assert_eq!(imported["digest"], digest.as_str());
    other.sound();
    // The store has its parent: it is packed as it was.
    let beside = store(test, "beside");
    let imported = beside.json(&["import", text(&parent), "x:1"]);
    assert_eq!(imported["digest"], first.as_str());
    let imported = beside.json(&["import", text(&archive), "x:2"]);
    assert_eq!(imported["digest"], digest.as_str());
    assert_eq!(imported["parent"], first.as_str());
    assert!(imported["new_bytes"].as_u64() < imported["bytes"].as_u64());
    beside.sound();
    // On its own, it is the same state.
    let alone = store(test, "alone");
    alone.json(&["import", text(&archive), "x"]);
    let config = |world: &World, name| world.json(&["inspect", name])["blobs"][0]["digest"].clone();
    assert_eq!(config(&alone, "x"), config(&other, "same"));
    let id = test.id("b");
    alone.json(&["restore", "x", "--id", &id]);
    let back = Container { id };
    back.goes_on_from(1);
    assert_eq!(back.read("/made/more"), "more");
}
