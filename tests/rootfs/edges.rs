//! Limits, obstacles, and what goes wrong on the way.

use crate::scratch::{all_allowed, scratch, upper};
use crate::snapshot;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, XattrFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fs;
use std::io::{Cursor, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use worldshim::ErrorKind;
use worldshim::world::rootfs::{Layering, Upper, bring_back, capture, same_as};

/// A small memory filesystem, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> SmallDisk {
        fs::create_dir_all(at).unwrap();
        mount("tmpfs", at, "tmpfs", MountFlags::empty(), c"size=1m").expect("mount a tmpfs");
        SmallDisk(at.to_path_buf())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

fn captured(path: &Path) -> Vec<u8> {
    let mut tar = Vec::new();
    capture(&upper(path), &mut tar).unwrap();
    tar
}

fn obstacle_of(path: &Path) -> String {
    let error = capture(&upper(path), std::io::sink()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Obstacle, "{error}");
    error.to_string()
}

/// Makes directories inside one another, whose path may be longer than any
/// system call takes.
fn nest(root: &Path, levels: usize, name: &str) -> OwnedFd {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir = rustix::fs::open(root, flags, Mode::empty()).unwrap();
    for _ in 0..levels {
        rustix::fs::mkdirat(&dir, name, Mode::RWXU).unwrap();
        dir = rustix::fs::openat(&dir, name, flags, Mode::empty()).unwrap();
    }
    dir
}

#[test]
fn paths_longer_than_system_calls_take_come_back() {
    let dir = scratch();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&to).unwrap();
    let name = "n".repeat(200);
    let inner = nest(&from, 100, &name);
    let flags = OFlags::CREATE | OFlags::WRONLY;
    let file = rustix::fs::openat(&inner, "file", flags, Mode::RUSR).unwrap();
    rustix::io::write(&file, b"deep").unwrap();
    rustix::fs::linkat(&inner, "file", &inner, "link", AtFlags::empty()).unwrap();
    let tar = captured(&from);
    bring_back(&upper(&to), Cursor::new(&tar), &all_allowed(), None).unwrap();
    assert!(same_as(&upper(&to), Cursor::new(&tar)).unwrap());
    // And are cleared away.
    bring_back(
        &upper(&to),
        Cursor::new(captured(&scratch_empty(&dir))),
        &all_allowed(),
        None,
    )
    .unwrap();
    assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
    bring_back(
        &upper(&from),
        Cursor::new(captured(&to)),
        &all_allowed(),
        None,
    )
    .unwrap();
}

fn scratch_empty(dir: &tempfile::TempDir) -> PathBuf {
    let empty = dir.path().join("empty");
    fs::create_dir_all(&empty).unwrap();
    empty
}

#[test]
fn too_many_levels_are_named_as_the_obstacle() {
    let dir = scratch();
    nest(dir.path(), 500, "d");
    assert!(obstacle_of(dir.path()).contains("deep"));
}

#[test]
fn names_that_mean_whiteouts_are_named_as_the_obstacle() {
    let dir = scratch();
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::write(dir.path().join("sub/.wh.file"), "").unwrap();
    assert!(obstacle_of(dir.path()).contains("/sub/.wh.file"));
}

#[test]
fn a_mount_inside_is_named_as_the_obstacle_and_never_cleared() {
    let dir = scratch();
    let (up, disk) = (dir.path().join("up"), dir.path().join("up/inner"));
    fs::create_dir(&up).unwrap();
    let tar = captured(&up);
    let disk = SmallDisk::mount(&disk);
    fs::write(disk.0.join("precious"), "kept").unwrap();
    assert!(obstacle_of(&up).contains("/inner"));
    bring_back(&upper(&up), Cursor::new(&tar), &all_allowed(), None).unwrap_err();
    assert_eq!(fs::read_to_string(disk.0.join("precious")).unwrap(), "kept");
}

#[test]
fn an_immutable_file_is_named_as_the_obstacle() {
    let dir = scratch();
    let path = dir.path().join("stone");
    let file = fs::File::create(&path).unwrap();
    let flags = rustix::fs::ioctl_getflags(&file).unwrap();
    rustix::fs::ioctl_setflags(&file, flags | rustix::fs::IFlags::IMMUTABLE).unwrap();
    let text = obstacle_of(dir.path());
    rustix::fs::ioctl_setflags(&file, flags).unwrap();
    assert!(
        text.contains("/stone") && text.contains("immutable"),
        "{text}"
    );
}

#[test]
fn unknown_marks_of_the_overlay_are_named_as_the_obstacle() {
    let dir = scratch();
    let path = dir.path().join("odd");
    fs::write(&path, "").unwrap();
    let set = |name: &str| {
        rustix::fs::lsetxattr(&path, name, b"x", XattrFlags::empty()).unwrap();
    };
    // What an overlay inside the container set, escaped by the one outside.
    set("trusted.overlay.overlay.opaque");
    let tar = captured(dir.path());
    assert!(same_as(&upper(dir.path()), Cursor::new(&tar)).unwrap());
    set("trusted.overlay.future");
    assert!(obstacle_of(dir.path()).contains("trusted.overlay.future"));
    // In a plain directory it is an attribute like any other.
    let plain = Upper::open(dir.path(), Layering::Plain).unwrap();
    capture(&plain, std::io::sink()).unwrap();
}

#[test]
fn whiteouts_that_are_attributes_become_ordinary_ones() {
    let dir = scratch();
    let (sub, gone) = (dir.path().join("sub"), dir.path().join("sub/gone"));
    fs::create_dir(&sub).unwrap();
    fs::write(&gone, "").unwrap();
    let set = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
    };
    set(&gone, "trusted.overlay.whiteout", b"y");
    assert!(obstacle_of(dir.path()).contains("/sub/gone"));
    set(&sub, "trusted.overlay.opaque", b"x");
    let tar = captured(dir.path());
    bring_back(&upper(dir.path()), Cursor::new(&tar), &all_allowed(), None).unwrap();
    let node = &snapshot::of(dir.path())[&b"sub/gone"[..]];
    assert_eq!(
        node.what,
        snapshot::What::Device {
            block: false,
            number: 0
        }
    );
}

/// Cuts a file short as soon as something is written.
struct Saboteur(PathBuf);

impl Write for Saboteur {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        fs::OpenOptions::new()
            .write(true)
            .open(&self.0)?
            .set_len(10)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_that_shrinks_meanwhile_is_an_error() {
    let dir = scratch();
    let path = dir.path().join("shrinking");
    fs::write(&path, vec![1; 5 << 20]).unwrap();
    let error = capture(&upper(dir.path()), Saboteur(path)).unwrap_err();
    assert!(error.to_string().contains("/shrinking"), "{error}");
}

#[test]
fn a_full_disk_is_told_as_such() {
    let dir = scratch();
    let (from, disk) = (
        dir.path().join("from"),
        SmallDisk::mount(&dir.path().join("disk")),
    );
    fs::create_dir(&from).unwrap();
    fs::write(from.join("big"), vec![1; 3 << 20]).unwrap();
    let out = fs::File::create(disk.0.join("rootfs.tar")).unwrap();
    let error = capture(&upper(&from), out).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    fs::remove_file(disk.0.join("rootfs.tar")).unwrap();
    let tar = captured(&from);
    let error = bring_back(&upper(&disk.0), Cursor::new(&tar), &all_allowed(), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(error.to_string().contains("/big"), "{error}");
}

#[test]
fn promised_totals_are_held_against_the_archive() {
    let dir = scratch();
    let mut tar = Vec::new();
    let mut totals = capture(&upper(dir.path()), &mut tar).unwrap();
    totals.entries += 1;
    let target = upper(dir.path());
    let error = bring_back(&target, Cursor::new(&tar), &all_allowed(), Some(&totals)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CorruptWorld, "{error}");
}

#[test]
fn every_difference_is_noticed() {
    let dir = scratch();
    let root = dir.path();
    let make = || {
        for entry in fs::read_dir(root).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        fs::write(root.join("file"), "content").unwrap();
        fs::write(root.join("other"), "content").unwrap();
        fs::hard_link(root.join("other"), root.join("second")).unwrap();
        symlink("there", root.join("link")).unwrap();
        let sparse = fs::File::create(root.join("sparse")).unwrap();
        sparse.set_len(1 << 20).unwrap();
        for entry in fs::read_dir(root).unwrap() {
            settle(&entry.unwrap().path());
        }
        settle(root);
    };
    make();
    let tar = captured(root);
    let same = || same_as(&upper(root), Cursor::new(&tar)).unwrap();
    type Change = (&'static str, fn(&Path));
    let changes: [Change; 11] = [
        ("content", |root| {
            fs::write(root.join("file"), "CONTENT").unwrap()
        }),
        ("size", |root| {
            fs::write(root.join("file"), "content and more").unwrap()
        }),
        ("data in a hole", |root| {
            let file = fs::OpenOptions::new()
                .write(true)
                .open(root.join("sparse"))
                .unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, b"x", 700_000).unwrap();
        }),
        ("mode", |root| {
            let mode = fs::Permissions::from_mode(0o600);
            fs::set_permissions(root.join("file"), mode).unwrap();
        }),
        ("owner", |root| {
            std::os::unix::fs::lchown(root.join("link"), Some(7), None).unwrap()
        }),
        ("attribute", |root| {
            let file = root.join("file");
            rustix::fs::lsetxattr(file, "user.x", b"y", XattrFlags::empty()).unwrap();
        }),
        ("one more", |root| fs::write(root.join("zz"), "").unwrap()),
        ("one less", |root| {
            fs::remove_file(root.join("sparse")).unwrap()
        }),
        ("another target", |root| {
            fs::remove_file(root.join("link")).unwrap();
            symlink("elsewhere", root.join("link")).unwrap();
        }),
        ("no hardlink", |root| {
            fs::remove_file(root.join("second")).unwrap();
            fs::write(root.join("second"), "content").unwrap();
        }),
        ("another type", |root| {
            fs::remove_file(root.join("file")).unwrap();
            fs::create_dir(root.join("file")).unwrap();
        }),
    ];
    for (what, change) in changes {
        make();
        assert!(same(), "before {what}");
        change(root);
        // The times alone shall not give it away.
        for entry in fs::read_dir(root).unwrap() {
            settle(&entry.unwrap().path());
        }
        settle(root);
        assert!(!same(), "{what}");
        let _ = fs::remove_dir(root.join("file"));
    }
    make();
    let file = fs::File::open(root.join("file")).unwrap();
    set_time(file.as_fd(), 1);
    assert!(!same(), "a nanosecond");
}

/// Gives the file the same time as all others.
fn settle(path: &Path) {
    rustix::fs::utimensat(CWD, path, &times(0), AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn set_time(file: std::os::fd::BorrowedFd<'_>, nanos: i64) {
    rustix::fs::futimens(file, &times(nanos)).unwrap();
}

fn times(nanos: i64) -> rustix::fs::Timestamps {
    let time = rustix::fs::Timespec {
        tv_sec: 1_000_000_000,
        tv_nsec: nanos,
    };
    rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    }
}

#[test]
fn a_file_with_the_same_bytes_stays_and_gets_its_time_back() {
    use std::os::unix::fs::MetadataExt;
    let dir = scratch();
    let (up, file) = (dir.path().join("up"), dir.path().join("up/file"));
    fs::create_dir(&up).unwrap();
    fs::write(&file, "content").unwrap();
    fs::write(up.join("other"), "content").unwrap();
    let tar = captured(&up);
    let before = fs::metadata(&file).unwrap();
    settle(&file);
    rustix::fs::lsetxattr(&file, "user.more", b"x", XattrFlags::empty()).unwrap();
    fs::write(up.join("other"), "CONTENT").unwrap();
    bring_back(&upper(&up), Cursor::new(&tar), &all_allowed(), None).unwrap();
    let after = fs::metadata(&file).unwrap();
    assert_eq!(
        (after.ino(), after.mtime_nsec()),
        (before.ino(), before.mtime_nsec())
    );
    assert_eq!(fs::read_to_string(up.join("other")).unwrap(), "content");
    assert!(same_as(&upper(&up), Cursor::new(&tar)).unwrap());
}

#[test]
fn a_file_with_a_name_outside_is_left_alone_there() {
    let dir = scratch();
    let (up, file) = (dir.path().join("up"), dir.path().join("up/file"));
    fs::create_dir(&up).unwrap();
    fs::write(&file, "content").unwrap();
    let tar = captured(&up);
    let outside = dir.path().join("outside");
    fs::hard_link(&file, &outside).unwrap();
    settle(&outside);
    let before = snapshot::of(dir.path())[&b"outside"[..]].clone();
    bring_back(&upper(&up), Cursor::new(&tar), &all_allowed(), None).unwrap();
    assert_eq!(snapshot::of(dir.path())[&b"outside"[..]], before);
    assert!(same_as(&upper(&up), Cursor::new(&tar)).unwrap());
}

#[test]
fn what_ties_the_root_to_its_lower_layers_stays() {
    let dir = scratch();
    let tar = captured(dir.path());
    let set = |name: &str| {
        rustix::fs::lsetxattr(dir.path(), name, b"x", XattrFlags::empty()).unwrap();
    };
    for name in [
        "trusted.overlay.origin",
        "trusted.overlay.redirect",
        "user.other",
    ] {
        set(name);
    }
    bring_back(&upper(dir.path()), Cursor::new(&tar), &all_allowed(), None).unwrap();
    let left = snapshot::of(dir.path())[&b""[..]].xattrs.clone();
    let left: Vec<_> = left.keys().map(Vec::as_slice).collect();
    assert_eq!(left, [b"trusted.overlay.origin"]);
}
