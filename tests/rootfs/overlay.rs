//! Layers that the kernel's overlayfs really made.

use crate::scratch::{Overlay, all_allowed, scratch, upper};
use crate::snapshot::{self, What};
use std::io::Cursor;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use worldshim::ErrorKind;
use worldshim::world::rootfs::{Layering, Upper, bring_back, capture, same_as};

/// A lower layer to change things in.
fn make_lower(base: &Path) {
    let lower = base.join("lower");
    std::fs::create_dir_all(lower.join("dir/inner")).unwrap();
    std::fs::create_dir_all(lower.join("replaced")).unwrap();
    std::fs::write(lower.join("dir/keep"), "below").unwrap();
    std::fs::write(lower.join("dir/gone"), "below").unwrap();
    std::fs::write(lower.join("replaced/hidden"), "below").unwrap();
    std::fs::write(lower.join("appended"), "below").unwrap();
    std::fs::write(lower.join("linked"), "below").unwrap();
    std::fs::hard_link(lower.join("linked"), lower.join("linked2")).unwrap();
}

/// What a container would do.
fn change(merged: &Path) {
    std::fs::remove_file(merged.join("dir/gone")).unwrap();
    std::fs::remove_dir_all(merged.join("replaced")).unwrap();
    std::fs::create_dir(merged.join("replaced")).unwrap();
    std::fs::write(merged.join("replaced/new"), "above").unwrap();
    let mut all = std::fs::read(merged.join("appended")).unwrap();
    all.extend(b" above");
    std::fs::write(merged.join("appended"), all).unwrap();
    std::fs::write(merged.join("linked"), "changed").unwrap();
    symlink("/etc/passwd", merged.join("dir/link")).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(merged.join("socket")).unwrap();
}

/// The contents that a process in the container sees.
fn seen(merged: &Path) -> Vec<(Vec<u8>, What)> {
    let nodes = snapshot::of(merged);
    nodes
        .into_iter()
        .map(|(path, node)| (path, node.what))
        .collect()
}

#[test]
fn a_changed_container_is_seen_the_same_over_the_same_lower_layers() {
    let dir = scratch();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    make_lower(&one);
    make_lower(&two);
    let mut tar = Vec::new();
    let expected = {
        let overlay = Overlay::mount(&one, "");
        change(&overlay.merged);
        capture(&upper(&one.join("upper")), &mut tar).unwrap();
        seen(&overlay.merged)
    };
    // The other container has a past of its own.
    {
        let overlay = Overlay::mount(&two, "");
        std::fs::remove_file(overlay.merged.join("appended")).unwrap();
        std::fs::write(overlay.merged.join("extra"), "other").unwrap();
    }
    let target = upper(&two.join("upper"));
    let inode = std::fs::metadata(two.join("upper")).unwrap().ino();
    assert!(!same_as(&target, Cursor::new(&tar)).unwrap());
    bring_back(&target, Cursor::new(&tar), &all_allowed(), None).unwrap();
    assert!(same_as(&target, Cursor::new(&tar)).unwrap());
    assert_eq!(std::fs::metadata(two.join("upper")).unwrap().ino(), inode);
    let overlay = Overlay::mount(&two, "");
    assert_eq!(seen(&overlay.merged), expected);
    // And it goes on working.
    std::fs::write(overlay.merged.join("replaced/new"), "again").unwrap();
    std::fs::remove_dir_all(overlay.merged.join("dir")).unwrap();
}

#[test]
fn capture_while_mounted_is_what_capture_after_unmounting_is() {
    let dir = scratch();
    make_lower(dir.path());
    let (mut during, mut after) = (Vec::new(), Vec::new());
    {
        let overlay = Overlay::mount(dir.path(), "");
        change(&overlay.merged);
        capture(&upper(&dir.path().join("upper")), &mut during).unwrap();
    }
    capture(&upper(&dir.path().join("upper")), &mut after).unwrap();
    assert!(during == after);
}

#[test]
fn userxattr_overlays_keep_their_opaque_directories() {
    let dir = scratch();
    make_lower(dir.path());
    let upper_dir = dir.path().join("upper");
    let layer = {
        let overlay = Overlay::mount(dir.path(), ",userxattr");
        change(&overlay.merged);
        Upper::open(&upper_dir, Layering::Overlay { userxattr: true }).unwrap()
    };
    let before = snapshot::of(&upper_dir);
    let mark = &b"user.overlay.opaque"[..];
    assert_eq!(before[&b"replaced"[..]].xattrs[mark], b"y");
    let mut tar = Vec::new();
    capture(&layer, &mut tar).unwrap();
    bring_back(&layer, Cursor::new(&tar), &all_allowed(), None).unwrap();
    assert_eq!(
        snapshot::of(&upper_dir)[&b"replaced"[..]].xattrs[mark],
        b"y"
    );
}

#[test]
fn a_redirected_directory_is_named_as_the_obstacle() {
    let dir = scratch();
    make_lower(dir.path());
    let overlay = Overlay::mount(dir.path(), ",redirect_dir=on");
    std::fs::rename(overlay.merged.join("dir"), overlay.merged.join("moved")).unwrap();
    let error = capture(&upper(&dir.path().join("upper")), std::io::sink()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Obstacle);
    let text = error.to_string();
    assert!(
        text.contains("/moved") && text.contains("redirect_dir"),
        "{text}"
    );
}

#[test]
fn a_file_without_its_data_is_named_as_the_obstacle() {
    use std::os::unix::fs::PermissionsExt;
    let dir = scratch();
    make_lower(dir.path());
    let overlay = Overlay::mount(dir.path(), ",metacopy=on");
    let mode = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(overlay.merged.join("appended"), mode).unwrap();
    let error = capture(&upper(&dir.path().join("upper")), std::io::sink()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Obstacle);
    let text = error.to_string();
    assert!(
        text.contains("/appended") && text.contains("metacopy"),
        "{text}"
    );
}
