//! Archives that nobody's capture wrote: one error, and nothing changed.

use crate::scratch::{all_allowed, scratch, upper};
use crate::{snapshot, tree};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use std::io::Cursor;
use std::path::Path;
use tar::EntryType;
use worldshim::ErrorKind;
use worldshim::world::rootfs::{
    DevicePolicy, Layering, Policy, Privileged, Upper, bring_back, capture, verify,
};

/// An archive in the making.
#[derive(Clone)]
struct Archive(Vec<u8>);

/// Begins an archive with the root directory.
fn rooted() -> Archive {
    Archive(Vec::new()).add(EntryType::Directory, b"./", b"", b"")
}

impl Archive {
    fn add(mut self, kind: EntryType, name: &[u8], link: &[u8], data: &[u8]) -> Archive {
        let mut header = header(kind, name, link, data.len() as u64);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn dir(self, name: &str) -> Archive {
        self.add(EntryType::Directory, name.as_bytes(), b"", b"")
    }

    fn file(self, name: &str) -> Archive {
        self.add(EntryType::Regular, name.as_bytes(), b"", b"data")
    }

    fn empty(self, name: &str) -> Archive {
        self.add(EntryType::Regular, name.as_bytes(), b"", b"")
    }

    fn symlink(self, name: &str, target: &str) -> Archive {
        self.add(EntryType::Symlink, name.as_bytes(), target.as_bytes(), b"")
    }

    fn hardlink(self, name: &str, target: &str) -> Archive {
        self.add(EntryType::Link, name.as_bytes(), target.as_bytes(), b"")
    }

    /// Records for the next entry.
    fn pax(self, records: &[(&str, &[u8])]) -> Archive {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut total = rest + 1;
            while total != rest + total.to_string().len() {
                total += 1;
            }
            body.extend(format!("{total} {key}=").into_bytes());
            body.extend(*value);
            body.push(b'\n');
        }
        self.raw_pax(&body)
    }

    fn raw_pax(self, body: &[u8]) -> Archive {
        self.add(EntryType::XHeader, b"pax", b"", body)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

fn header(kind: EntryType, name: &[u8], link: &[u8], size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    let ustar = header.as_ustar_mut().unwrap();
    ustar.set_device_major(0);
    ustar.set_device_minor(0);
    ustar.name[..name.len()].copy_from_slice(name);
    ustar.linkname[..link.len()].copy_from_slice(link);
    header
}

/// A header changed before its checksum is made.
fn odd(change: impl FnOnce(&mut tar::Header)) -> Vec<u8> {
    let mut header = header(EntryType::Regular, b"f", b"", 0);
    change(&mut header);
    header.set_cksum();
    let mut archive = rooted();
    archive.0.extend(header.as_bytes());
    archive.end()
}

fn sparse(map: &str, data: &[u8], size: &str) -> Vec<u8> {
    let mut body = map.as_bytes().to_vec();
    body.resize(body.len().next_multiple_of(512), 0);
    body.extend(data);
    rooted()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"f"),
            ("GNU.sparse.realsize", size.as_bytes()),
        ])
        .add(EntryType::Regular, b"x", b"", &body)
        .end()
}

fn corrupt_archives() -> Vec<(&'static str, Vec<u8>)> {
    let long = "x/".repeat(401) + "f";
    let many = vec![b'a'; 256];
    vec![
        ("empty file", vec![]),
        ("only the end", vec![0; 1024]),
        ("no end", rooted().0),
        ("half an end", [rooted().0, vec![0; 512]].concat()),
        (
            "more after the end",
            [rooted().end(), rooted().end()].concat(),
        ),
        ("a byte after the end", [rooted().end(), vec![0]].concat()),
        ("text", vec![b'x'; 2048]),
        ("no root", Archive(vec![]).file("f").end()),
        ("a root that is a file", Archive(vec![]).file("./").end()),
        ("two roots", rooted().dir("./").end()),
        ("absolute", rooted().file("/etc/x").end()),
        ("parent", rooted().file("../x").end()),
        ("parent inside", rooted().dir("a").file("a/../../x").end()),
        ("parent as a name", rooted().dir("..").end()),
        ("dot", rooted().file("./x").end()),
        ("double slash", rooted().dir("a").file("a//x").end()),
        ("file with a slash", rooted().file("x/").end()),
        ("no name", rooted().file("").end()),
        (
            "through a symlink",
            rooted().symlink("a", "/etc").file("a/x").end(),
        ),
        (
            "through two symlinks",
            rooted()
                .symlink("a", "..")
                .symlink("b", "a/..")
                .file("b/x")
                .end(),
        ),
        ("below a file", rooted().file("a").file("a/x").end()),
        (
            "symlink, then directory",
            rooted().symlink("a", "/etc").dir("a").file("a/x").end(),
        ),
        (
            "directory, then symlink",
            rooted().dir("a").symlink("a", "/etc").file("a/x").end(),
        ),
        ("twice", rooted().file("a").file("a").end()),
        ("out of order", rooted().file("b").file("a").end()),
        ("no entry for the parent", rooted().file("a/x").end()),
        (
            "back into a directory",
            rooted().dir("a").dir("b").file("a/x").end(),
        ),
        (
            "hardlink outside",
            rooted().hardlink("a", "/etc/passwd").end(),
        ),
        (
            "hardlink up",
            rooted().hardlink("a", "../../etc/passwd").end(),
        ),
        (
            "hardlink through a symlink",
            rooted()
                .symlink("a", "/etc")
                .hardlink("b", "a/passwd")
                .end(),
        ),
        (
            "hardlink forward",
            rooted().hardlink("a", "b").file("b").end(),
        ),
        ("hardlink to itself", rooted().hardlink("a", "a").end()),
        (
            "hardlink to a directory",
            rooted().dir("a").hardlink("b", "a").end(),
        ),
        (
            "hardlink to a whiteout",
            rooted().empty(".wh.a").hardlink("b", "a").end(),
        ),
        ("hardlink to nothing", rooted().hardlink("a", "").end()),
        ("symlink to nothing", rooted().symlink("a", "").end()),
        ("whiteout of ..", rooted().empty(".wh...").end()),
        ("whiteout of .", rooted().empty(".wh..").end()),
        ("whiteout of nothing", rooted().empty(".wh.").end()),
        ("unknown whiteout", rooted().empty(".wh..wh.plnk").end()),
        ("whiteout with data", rooted().file(".wh.a").end()),
        (
            "directory called as a whiteout",
            rooted().dir(".wh.a").end(),
        ),
        (
            "symlink called as a whiteout",
            rooted().symlink(".wh.a", "x").end(),
        ),
        ("whiteout and file", rooted().file("a").empty(".wh.a").end()),
        (
            "late opaque mark",
            rooted().dir("a").file("a/b").empty("a/.wh..wh..opq").end(),
        ),
        (
            "two opaque marks",
            rooted().empty(".wh..wh..opq").empty(".wh..wh..opq").end(),
        ),
        (
            "opaque file",
            rooted().file("a").empty("a/.wh..wh..opq").end(),
        ),
        (
            "device 0:0",
            rooted().add(EntryType::Char, b"a", b"", b"").end(),
        ),
        (
            "directory with data",
            rooted().add(EntryType::Directory, b"a", b"", b"x").end(),
        ),
        (
            "global header",
            rooted()
                .add(EntryType::XGlobalHeader, b"g", b"", b"9 a=bcdef\n")
                .file("a")
                .end(),
        ),
        (
            "GNU long name",
            rooted()
                .add(EntryType::GNULongName, b"L", b"", b"a\0")
                .file("a")
                .end(),
        ),
        (
            "unknown type",
            rooted().add(EntryType::new(b'Z'), b"a", b"", b"").end(),
        ),
        (
            "records without an entry",
            rooted().pax(&[("path", b"a")]).end(),
        ),
        (
            "records twice",
            rooted()
                .pax(&[("path", b"a")])
                .pax(&[("path", b"b")])
                .file("a")
                .end(),
        ),
        (
            "a record twice",
            rooted()
                .pax(&[("path", b"a"), ("path", b"b")])
                .file("a")
                .end(),
        ),
        (
            "an unknown record",
            rooted().pax(&[("comment", b"a")]).file("a").end(),
        ),
        (
            "record too long",
            rooted().raw_pax(b"99 path=a\n").file("a").end(),
        ),
        (
            "record too short",
            rooted().raw_pax(b"5 path=a\n").file("a").end(),
        ),
        (
            "record without =",
            rooted().raw_pax(b"7 path\n").file("a").end(),
        ),
        (
            "record without key",
            rooted().raw_pax(b"5 =a\n").file("a").end(),
        ),
        (
            "record of no length",
            rooted().raw_pax(b" path=a\n").file("a").end(),
        ),
        (
            "path record up",
            rooted().pax(&[("path", b"../a")]).file("a").end(),
        ),
        (
            "path record with NUL",
            rooted().pax(&[("path", b"a\0b")]).file("a").end(),
        ),
        (
            "path component too long",
            rooted().pax(&[("path", &many)]).file("a").end(),
        ),
        (
            "path too deep",
            rooted().pax(&[("path", long.as_bytes())]).file("a").end(),
        ),
        (
            "owner too big",
            rooted().pax(&[("uid", b"4294967295")]).file("a").end(),
        ),
        (
            "owner negative",
            rooted().pax(&[("gid", b"-1")]).file("a").end(),
        ),
        (
            "owner overflow",
            rooted()
                .pax(&[("uid", b"99999999999999999999")])
                .file("a")
                .end(),
        ),
        (
            "time not a number",
            rooted().pax(&[("mtime", b"now")]).file("a").end(),
        ),
        (
            "time too fine",
            rooted().pax(&[("mtime", b"1.0123456789")]).file("a").end(),
        ),
        (
            "time too big",
            rooted()
                .pax(&[("mtime", b"9999999999999999999")])
                .file("a")
                .end(),
        ),
        (
            "size beyond the archive",
            rooted()
                .pax(&[("size", b"9000000000000000000")])
                .file("a")
                .end(),
        ),
        (
            "size overflow",
            rooted()
                .pax(&[("size", b"18446744073709551615")])
                .file("a")
                .end(),
        ),
        (
            "header size beyond",
            odd(|header| header.set_size(0o77777777777)),
        ),
        ("binary size", odd(|header| header.set_size(u64::MAX / 2))),
        ("mode beyond", odd(|header| header.set_mode(0o100755))),
        (
            "mode no number",
            odd(|header| header.as_ustar_mut().unwrap().mode = *b"rwxr-xr-"),
        ),
        (
            "not ustar",
            odd(|header| header.as_ustar_mut().unwrap().magic = *b"usta\0\0"),
        ),
        (
            "device too big",
            odd(|header| {
                header.set_entry_type(EntryType::Block);
                header.set_device_major(4096).unwrap();
            }),
        ),
        (
            "attribute of no name",
            rooted().pax(&[("SCHILY.xattr.", b"a")]).file("a").end(),
        ),
        (
            "attribute too big",
            rooted()
                .pax(&[("SCHILY.xattr.user.a", &[0; 65537])])
                .file("a")
                .end(),
        ),
        (
            "attribute twice",
            rooted()
                .pax(&[("SCHILY.xattr.user.a", b"1"), ("SCHILY.xattr.user.a", b"2")])
                .file("a")
                .end(),
        ),
        (
            "redirect",
            rooted()
                .pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc")])
                .dir("a")
                .end(),
        ),
        (
            "opaque attribute",
            rooted()
                .pax(&[("SCHILY.xattr.trusted.overlay.opaque", b"y")])
                .dir("a")
                .end(),
        ),
        (
            "attribute of a whiteout",
            rooted()
                .pax(&[("SCHILY.xattr.user.a", b"1")])
                .empty(".wh.a")
                .end(),
        ),
        (
            "socket with data",
            rooted()
                .pax(&[("WORLDSHIM.type", b"socket")])
                .file("a")
                .end(),
        ),
        (
            "socket directory",
            rooted()
                .pax(&[("WORLDSHIM.type", b"socket")])
                .dir("a")
                .end(),
        ),
        (
            "unknown special",
            rooted()
                .pax(&[("WORLDSHIM.type", b"door")])
                .empty("a")
                .end(),
        ),
        (
            "sparse 0.1",
            rooted().pax(&[("GNU.sparse.map", b"0,1")]).file("a").end(),
        ),
        (
            "half sparse",
            rooted().pax(&[("GNU.sparse.major", b"1")]).file("a").end(),
        ),
        (
            "sparse directory",
            rooted()
                .pax(&[
                    ("GNU.sparse.major", b"1"),
                    ("GNU.sparse.minor", b"0"),
                    ("GNU.sparse.name", b"a"),
                    ("GNU.sparse.realsize", b"0"),
                ])
                .dir("a")
                .end(),
        ),
        ("sparse beyond its size", sparse("1\n0\n4\n", b"data", "3")),
        (
            "sparse overlapping",
            sparse("2\n0\n2\n1\n2\n", b"data", "100"),
        ),
        (
            "sparse backwards",
            sparse("2\n8\n2\n0\n2\n", b"data", "100"),
        ),
        (
            "sparse overflow",
            sparse("1\n18446744073709551615\n4\n", b"data", "100"),
        ),
        (
            "sparse too little data",
            sparse("1\n0\n5\n", b"data", "100"),
        ),
        ("sparse too much data", sparse("1\n0\n3\n", b"data", "100")),
        (
            "sparse giant count",
            sparse("99999999\n0\n4\n", b"data", "100"),
        ),
        ("sparse map cut off", sparse("5\n0\n4\n", b"data", "100")),
        ("sparse map of letters", sparse("one\n", b"data", "100")),
        (
            "sparse map line too long",
            sparse("0000000000000000000000000000001\n0\n4\n", b"data", "100"),
        ),
        (
            "sparse giant size",
            sparse("1\n0\n4\n", b"data", "18446744073709551615"),
        ),
    ]
}

/// A destination with something in it, beside something that must not change.
fn destination(base: &Path) -> Upper {
    std::fs::create_dir(base.join("up")).unwrap();
    std::fs::write(base.join("up/before"), "before").unwrap();
    std::fs::write(base.join("outside"), "outside").unwrap();
    upper(&base.join("up"))
}

#[test]
fn every_hostile_archive_is_one_error_and_changes_nothing() {
    let dir = scratch();
    let target = destination(dir.path());
    let before = snapshot::of(dir.path());
    for (what, tar) in corrupt_archives() {
        let result = bring_back(&target, Cursor::new(&tar), &all_allowed(), None);
        let error = result.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::CorruptWorld, "{what}: {error}");
        assert!(error.to_string().contains("rootfs.tar"), "{what}: {error}");
        assert_eq!(snapshot::of(dir.path()), before, "{what}");
    }
}

#[test]
fn the_table_s_innocent_neighbours_are_taken() {
    let dir = scratch();
    let target = destination(dir.path());
    let innocent = [
        rooted().end(),
        rooted().add(EntryType::new(0), b"a", b"", b"").end(),
        rooted().dir("a").dir("b").file("b/x").end(),
        rooted().symlink("a", "/etc").hardlink("b", "a").end(),
        rooted().symlink("a", "../../..").end(),
        rooted().empty(".wh..wh..opq").empty(".wh.a").end(),
        rooted()
            .pax(&[("mtime", b"-1.5"), ("uid", b"4294967294")])
            .file("a")
            .end(),
        rooted()
            .pax(&[("WORLDSHIM.type", b"socket")])
            .empty("a")
            .end(),
        sparse("2\n0\n4\n100\n0\n", b"data", "100"),
        sparse("0\n", b"", "1000000000000"),
    ];
    for tar in innocent {
        bring_back(&target, Cursor::new(&tar), &all_allowed(), None).expect("bring back");
    }
    assert_eq!(
        std::fs::metadata(dir.path().join("up/f")).unwrap().len(),
        1_000_000_000_000
    );
}

#[test]
fn hardlinks_to_symlinks_link_the_symlink() {
    let dir = scratch();
    let target = destination(dir.path());
    let tar = rooted()
        .symlink("a", "/etc/passwd")
        .hardlink("b", "a")
        .end();
    let passwd = std::fs::metadata("/etc/passwd").unwrap();
    bring_back(&target, Cursor::new(&tar), &all_allowed(), None).unwrap();
    let link = std::fs::read_link(dir.path().join("up/b")).unwrap();
    assert_eq!(link, Path::new("/etc/passwd"));
    use std::os::unix::fs::MetadataExt;
    assert_eq!(
        std::fs::metadata("/etc/passwd").unwrap().nlink(),
        passwd.nlink()
    );
}

#[test]
fn a_link_in_the_destination_is_replaced_not_followed() {
    let dir = scratch();
    let target = destination(dir.path());
    std::os::unix::fs::symlink("../outside", dir.path().join("up/f")).unwrap();
    std::fs::create_dir(dir.path().join("elsewhere")).unwrap();
    std::fs::write(dir.path().join("elsewhere/f"), "elsewhere").unwrap();
    std::os::unix::fs::symlink("../elsewhere", dir.path().join("up/d")).unwrap();
    let tar = rooted().dir("d").file("d/f").file("f").end();
    bring_back(&target, Cursor::new(&tar), &all_allowed(), None).unwrap();
    let read = |path: &str| std::fs::read_to_string(dir.path().join(path)).unwrap();
    assert_eq!(read("outside"), "outside");
    assert_eq!(read("elsewhere/f"), "elsewhere");
    assert_eq!(read("up/d/f"), "data");
}

#[test]
fn what_the_policy_forbids_is_refused_before_anything_changes() {
    let dir = scratch();
    let target = destination(dir.path());
    let before = snapshot::of(dir.path());
    let device = {
        let mut header = header(EntryType::Block, b"disk", b"", 0);
        header.set_device_major(8).unwrap();
        header.set_cksum();
        let mut archive = rooted();
        archive.0.extend(header.as_bytes());
        archive.end()
    };
    let setuid = odd(|header| header.set_mode(0o4755));
    let capability = rooted()
        .pax(&[(
            "SCHILY.xattr.security.capability",
            &tree::capability_value(),
        )])
        .file("f")
        .end();
    let strict = Policy {
        devices: DevicePolicy::default(),
        privileged: Privileged::Refuse,
    };
    for (tar, why) in [
        (device, "8:0"),
        (setuid, "setuid"),
        (capability, "capabilities"),
    ] {
        let error = bring_back(&target, Cursor::new(&tar), &strict, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Obstacle, "{error}");
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(snapshot::of(dir.path()), before);
        let layering = target.layering();
        verify(Cursor::new(&tar), layering, &all_allowed(), None).expect("allowed");
    }
}

/// An archive of one of everything.
fn rich_archive(base: &Path) -> Vec<u8> {
    let from = base.join("from");
    std::fs::create_dir(&from).unwrap();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let steps = loop {
        let steps = tree::trees().new_tree(&mut runner).unwrap().current();
        if steps.len() > 30 {
            break steps;
        }
    };
    tree::build(&from, &steps);
    let mut tar = Vec::new();
    capture(&upper(&from), &mut tar).unwrap();
    std::fs::remove_dir_all(&from).unwrap();
    tar
}

#[test]
fn an_archive_cut_off_anywhere_is_refused() {
    let dir = scratch();
    let tar = rich_archive(dir.path());
    let layering = Layering::Overlay { userxattr: false };
    for length in (0..tar.len()).step_by(512).chain([tar.len() - 1]) {
        let error =
            verify(Cursor::new(&tar[..length]), layering, &all_allowed(), None).unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::CorruptWorld,
            "at {length}: {error}"
        );
    }
}

/// Makes the checksums of all that looks like a header right again.
fn repair(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes().copy_from_slice(block);
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
}

#[test]
fn flipped_bytes_never_reach_beyond_the_destination() {
    let dir = scratch();
    let good = rich_archive(dir.path());
    let target = destination(dir.path());
    let outside = |mut nodes: snapshot::Snapshot| {
        nodes.retain(|path, _| !path.starts_with(b"up"));
        nodes
    };
    let before = outside(snapshot::of(dir.path()));
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let places = proptest::collection::vec((0..good.len(), any::<u8>()), 1..4);
    for round in 0..200 {
        let mut tar = good.clone();
        for (at, byte) in places.new_tree(&mut runner).unwrap().current() {
            tar[at] = byte;
        }
        if round % 4 != 0 {
            repair(&mut tar);
        }
        let _ = bring_back(&target, Cursor::new(&tar), &all_allowed(), None);
        assert_eq!(outside(snapshot::of(dir.path())), before);
    }
}
