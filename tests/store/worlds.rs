//! Worlds come, get names, lose them, and go.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;

use worldshim::ErrorKind;
use worldshim::digest::Digest;
use worldshim::store::{GcOptions, Store};

use crate::common::{Home, manifest, name, publish, reference};

#[test]
fn a_world_is_found_by_its_name_its_digest_and_its_beginning() {
    let Home { store, .. } = &Home::new();
    let world = publish(store, &["a", "b"], Some("web"));
    assert!(world.new);
    let digest = world.digest;
    for text in [
        "web".to_owned(),
        "web:latest".to_owned(),
        digest.to_string(),
        digest.hex(),
        digest.hex()[..6].to_owned(),
        digest.to_string()[..13].to_owned(),
    ] {
        assert_eq!(store.resolve(&reference(&text)).unwrap(), digest, "{text}");
    }
    for text in ["web:v1", "wob", "sha256:000000"] {
        let error = store.resolve(&reference(text)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{text}");
    }
    let listed = store.list().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].names, ["web:latest"]);
    assert_eq!(
        listed[0].artifact_type.as_deref(),
        Some(crate::common::WORLD)
    );
    assert_eq!(listed[0].annotations["org.criu.checkpoint.test"], "1");
}

#[test]
fn the_same_world_twice_is_one() {
    let Home { store, .. } = &Home::new();
    let first = publish(store, &["a"], Some("web"));
    let index = std::fs::read(store.path().join("index.json")).unwrap();
    let second = publish(store, &["a"], Some("web"));
    assert_eq!(first.digest, second.digest);
    assert!(!second.new && second.displaced.is_none());
    assert_eq!(
        index,
        std::fs::read(store.path().join("index.json")).unwrap()
    );
}

#[test]
fn a_name_that_moves_leaves_the_former_world() {
    let Home { store, .. } = &Home::new();
    let old = publish(store, &["old"], Some("web"));
    let new = publish(store, &["new"], Some("web"));
    assert_eq!(new.displaced, Some(old.digest));
    let listed = store.list().unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!((listed[0].digest, listed[0].names.len()), (old.digest, 0));
    assert_eq!(listed[1].names, ["web:latest"]);
    store.gc(&GcOptions::default()).unwrap();
    assert_eq!(store.list().unwrap().len(), 2);
    let drop_untagged = GcOptions {
        drop_untagged: true,
        ..GcOptions::default()
    };
    let swept = store.gc(&drop_untagged).unwrap();
    assert_eq!(swept.worlds, [old.digest]);
    // Its manifest and its layer; both have the same config.
    assert_eq!(swept.blobs, 2);
    assert_eq!(store.list().unwrap().len(), 1);
}

#[test]
fn tags_are_given_taken_and_removed() {
    let Home { store, .. } = &Home::new();
    let digest = publish(store, &["a"], Some("web")).digest;
    store.tag(&reference("web"), &name("web:v1")).unwrap();
    store.tag(&reference("web"), &name("other")).unwrap();
    let by_digest = reference(&digest.to_string());
    let several = store.remove(&by_digest, false).unwrap_err();
    assert_eq!(several.kind(), ErrorKind::WrongState);
    let removed = store.remove(&reference("web:v1"), false).unwrap();
    assert!(!removed.gone);
    assert_eq!(removed.names, ["web:v1"]);
    assert_eq!(store.untag(&name("other")).unwrap(), digest);
    let removed = store.remove(&reference("web"), false).unwrap();
    assert!(removed.gone);
    assert!(store.list().unwrap().is_empty());
    assert_eq!(
        store.remove(&reference("web"), false).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn the_last_name_taken_leaves_the_world() {
    let Home { store, .. } = &Home::new();
    let digest = publish(store, &["a"], Some("web")).digest;
    store.untag(&name("web")).unwrap();
    let listed = store.list().unwrap();
    assert_eq!((listed[0].digest, listed[0].names.len()), (digest, 0));
    store.tag(&reference(&digest.hex()), &name("back")).unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
    assert_eq!(store.resolve(&reference("back")).unwrap(), digest);
}

#[test]
fn what_is_shared_is_told_from_what_is_not() {
    let Home { store, .. } = &Home::new();
    publish(store, &["common", "one"], Some("one"));
    publish(store, &["common", "three"], Some("two"));
    let listed = store.list().unwrap();
    let sizes: Vec<_> = listed.iter().map(|world| world.sizes.unwrap()).collect();
    let config = "{\"layers\":2}".len() as u64;
    assert_eq!(sizes[0].shared, 6 + config);
    assert_eq!(sizes[1].shared, 6 + config);
    assert_eq!(sizes[1].own - sizes[0].own, 2);
}

#[test]
fn everything_in_it_is_private() {
    let home = Home::new();
    publish(&home.store, &["a"], Some("web"));
    let mut todo = vec![home.store.path().to_path_buf()];
    while let Some(path) = todo.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        assert_eq!(meta.permissions().mode() & 0o077, 0, "{}", path.display());
        if meta.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
    }
}

#[test]
fn a_manifest_without_its_blobs_is_not_published() {
    let home = &Home::new();
    let lease = home.store.lease().unwrap();
    let manifest = manifest(&lease, &["a", "b"]);
    std::fs::remove_file(home.blob(&Digest::of(b"a"))).unwrap();
    let publish = || {
        let published =
            home.store
                .publish(&lease, &manifest, &Default::default(), Some(&name("web")));
        published.map(|_| ()).unwrap_err()
    };
    let error = publish();
    assert_eq!(error.kind(), ErrorKind::CorruptWorld);
    assert!(error.to_string().contains("is missing"), "{error}");
    std::fs::write(home.blob(&Digest::of(b"a")), b"longer").unwrap();
    assert!(publish().to_string().contains("6 bytes and should be 1"));
    assert!(home.store.list().unwrap().is_empty());
}

#[test]
fn a_lease_holds_what_nobody_else_needs() {
    let home = &Home::new();
    let store = &home.store;
    let digest = publish(store, &["a", "b"], Some("web")).digest;
    let lease = store.lease().unwrap();
    store.resolve_held(&reference("web"), &lease).unwrap();
    let also = lease.clone();
    drop(lease);
    assert!(store.remove(&reference("web"), false).unwrap().gone);
    assert_eq!(store.gc(&GcOptions::default()).unwrap().blobs, 0);
    assert_eq!(store.manifest(&digest).unwrap().layers().len(), 2);
    drop(also);
    let dry = GcOptions {
        dry_run: true,
        ..GcOptions::default()
    };
    assert_eq!(store.gc(&dry).unwrap().blobs, 4);
    assert_eq!(store.gc(&GcOptions::default()).unwrap().blobs, 4);
    assert_eq!(store.gc(&GcOptions::default()).unwrap().blobs, 0);
    let error = store.manifest(&digest).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let lease = store.lease().unwrap();
    assert_eq!(lease.hold(&digest).unwrap(), None);
    assert_eq!(
        lease.hold_world(&digest).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[test]
fn blobs_are_written_once_and_by_any_thread() {
    let home = &Home::new();
    let lease = home.store.lease().unwrap();
    let content = vec![7u8; 1 << 20];
    let written: Vec<_> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|_| {
                let mut writer = lease.write_blob().unwrap();
                let content = &content;
                scope.spawn(move || {
                    content
                        .chunks(100_000)
                        .for_each(|chunk| writer.write_all(chunk).unwrap());
                    writer.finish().unwrap()
                })
            })
            .collect();
        writers.into_iter().map(|w| w.join().unwrap()).collect()
    });
    assert!(written.iter().all(|w| w.digest == Digest::of(&content)));
    assert_eq!(written.iter().filter(|w| w.new).count().min(1), 1);
    let mut read = Vec::new();
    let mut blob = home.store.open_blob(&written[0].digest).unwrap();
    blob.file.read_to_end(&mut read).unwrap();
    assert_eq!((blob.size, &read), (1 << 20, &content));
    drop(lease.write_blob().unwrap());
    let tmp = std::fs::read_dir(home.file(".worldshim/tmp")).unwrap();
    assert_eq!(tmp.count(), 0);
}

#[test]
fn a_fetch_goes_on_where_it_was_cut_short() {
    let home = &Home::new();
    let store = &home.store;
    let content = b"a blob from elsewhere";
    let digest = Digest::of(content);
    let wanted = || {
        let lease = store.lease().unwrap();
        let wanted = lease.fetch_blob(&digest, content.len() as u64).unwrap();
        wanted.expect("it is not there yet")
    };
    let mut blob = wanted();
    blob.write_all(&content[..6]).unwrap();
    assert_eq!(blob.finish().unwrap_err().kind(), ErrorKind::Aborted);
    store.gc(&GcOptions::default()).unwrap();
    let mut blob = wanted();
    assert_eq!(blob.offset(), 6);
    // Another one fetches the same meanwhile.
    let mut other = wanted();
    assert_eq!(other.offset(), 0);
    other.write_all(content).unwrap();
    assert!(blob.write_all(&[0; 100]).is_err());
    blob.write_all(&content[6..]).unwrap();
    assert!(blob.finish().unwrap().new);
    assert!(!other.finish().unwrap().new);
    let lease = store.lease().unwrap();
    let there = lease.fetch_blob(&digest, content.len() as u64).unwrap();
    assert!(there.is_none());
    assert_eq!(store.read(&digest, 100).unwrap(), content);
}

#[test]
fn a_fetch_of_something_else_is_thrown_away() {
    let Home { store, .. } = &Home::new();
    let lease = store.lease().unwrap();
    let digest = Digest::of(b"wanted");
    for attempt in 0..2 {
        let Some(mut blob) = lease.fetch_blob(&digest, 6).unwrap() else {
            panic!("attempt {attempt}: it is not there yet");
        };
        assert_eq!(blob.offset(), 0);
        blob.write_all(b"forged").unwrap();
        assert_eq!(blob.finish().unwrap_err().kind(), ErrorKind::CorruptWorld);
    }
    assert_eq!(lease.hold(&digest).unwrap(), None);
}

#[test]
fn a_store_opens_only_where_there_is_one_or_nothing() {
    let home = Home::new();
    let folder = home.folder.path();
    assert!(Store::open(home.store.path()).is_ok());
    let missing = Store::open_existing(&folder.join("missing")).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let taken = folder.join("taken");
    std::fs::create_dir(&taken).unwrap();
    assert_eq!(
        Store::open_existing(&taken).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    std::fs::write(taken.join("thesis.txt"), "").unwrap();
    let error = Store::open(&taken).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("thesis.txt"), "{error}");
    std::fs::write(home.file("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    let error = Store::open(home.store.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ForeignWorld);
}

#[test]
fn a_lost_index_is_not_taken_for_an_empty_one() {
    let home = Home::new();
    publish(&home.store, &["a"], Some("web"));
    std::fs::remove_file(home.file("index.json")).unwrap();
    let error = home.store.gc(&GcOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CorruptWorld);
    assert!(Store::open(home.store.path()).unwrap().list().is_err());
    std::fs::remove_file(home.file("oci-layout")).unwrap();
    let error = Store::open(home.store.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CorruptWorld);
    assert!(home.blob(&Digest::of(b"a")).exists());
}

#[test]
fn a_damaged_manifest_stops_the_sweep() {
    let home = Home::new();
    let digest = publish(&home.store, &["a"], Some("web")).digest;
    publish(&home.store, &["b"], Some("other"));
    let mut bytes = std::fs::read(home.blob(&digest)).unwrap();
    let last = bytes.len() - 1;
    bytes[last] = b' ';
    std::fs::write(home.blob(&digest), bytes).unwrap();
    let error = home.store.gc(&GcOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CorruptWorld);
    assert!(error.to_string().contains(&digest.to_string()), "{error}");
    assert!(home.blob(&Digest::of(b"a")).exists());
    let sizes: Vec<_> = home
        .store
        .list()
        .unwrap()
        .into_iter()
        .map(|w| w.sizes)
        .collect();
    assert!(sizes[0].is_none() && sizes[1].is_some());
    home.store.remove(&reference("web"), false).unwrap();
    assert_eq!(home.store.gc(&GcOptions::default()).unwrap().blobs, 2);
}
