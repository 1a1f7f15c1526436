//! What a tar of unknown origin may hold.

use std::io::Cursor;

use proptest::prelude::*;
use tar::Builder;

use super::*;

fn reader(bytes: Vec<u8>) -> TarReader {
    let input = Input::Stream(Box::new(Cursor::new(bytes)));
    TarReader::new(input, "it".to_owned(), 100_000)
}

fn tar(write: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    write(&mut builder);
    builder.into_inner().unwrap()
}

fn add(builder: &mut Builder<Vec<u8>>, path: &str, data: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_size(data.len() as u64);
    builder.append_data(&mut header, path, data).unwrap();
}

/// All members with their data.
fn all(bytes: Vec<u8>) -> Result<Vec<(String, Vec<u8>)>> {
    let mut reader = reader(bytes);
    let mut all = Vec::new();
    while let Some(member) = reader.next()? {
        let data = reader.read(&member, 1 << 20)?;
        all.push((member.path, data));
    }
    Ok(all)
}

#[test]
fn members_come_in_their_order_with_long_names() {
    let long = "a/".repeat(100) + "b";
    let bytes = tar(|builder| {
        add(builder, "./first", b"one");
        add(builder, &long, b"two");
        let size = ("size", &b"5"[..]);
        builder.append_pax_extensions([size]).unwrap();
        add(builder, "third", b"three");
    });
    let found = all(bytes).unwrap();
    let expected: [(&str, &[u8]); 3] = [("first", b"one"), (&long, b"two"), ("third", b"three")];
    let expected = expected.map(|(path, data)| (path.to_owned(), data.to_vec()));
    assert_eq!(found, expected);
}

#[test]
fn a_path_in_a_record_is_checked_too() {
    for path in ["../x", "/x", "a/../../x", "a\0b"] {
        let bytes = tar(|builder| {
            builder
                .append_pax_extensions([("path", path.as_bytes())])
                .unwrap();
            add(builder, "harmless", b"");
        });
        let error = all(bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CorruptWorld, "{path}");
    }
}

#[test]
fn records_have_a_bound() {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_size(MOST_RECORDS + 1);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(4 << 20, 0);
    let error = all(bytes).unwrap_err();
    assert!(error.to_string().contains("allowed"), "{error}");
}

#[test]
fn more_than_is_allowed_is_not_read() {
    let bytes = tar(|builder| {
        add(builder, "a", &[1; 60_000]);
        add(builder, "b", &[1; 60_000]);
    });
    let error = all(bytes.clone()).unwrap_err();
    assert!(error.to_string().contains("unpacks to more"), "{error}");
    let mut reader = reader(bytes);
    reader.allow(60_000);
    for _ in 0..2 {
        assert!(reader.next().unwrap().is_some());
    }
}

#[test]
fn every_cut_is_seen() {
    let bytes = tar(|builder| {
        add(builder, "a", &[1; 700]);
        add(builder, "b", &[2; 10]);
    });
    // The second of the two closing blocks says nothing.
    for length in 0..bytes.len() - 1023 {
        assert!(all(bytes[..length].to_vec()).is_err(), "{length}");
    }
    assert_eq!(all(bytes).unwrap().len(), 2);
}

#[test]
fn what_comes_after_the_end_is_no_part_of_it() {
    let mut bytes = tar(|builder| add(builder, "a", b"x"));
    bytes.resize(10240, 0);
    assert_eq!(all(bytes.clone()).unwrap().len(), 1);
    bytes.push(1);
    assert!(all(bytes).is_err());
}

proptest! {
    #[test]
    fn damage_is_an_error_or_something_plain(
        at in 0usize..3000,
        bit in 0u8..8,
    ) {
        let mut bytes = tar(|builder| {
            add(builder, "a", &[1; 700]);
            add(builder, &"l".repeat(150), &[2; 10]);
        });
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        for (path, _) in all(bytes).unwrap_or_default() {
            prop_assert!(!path.contains("..") && !path.starts_with('/'));
        }
    }

    #[test]
    fn any_bytes_end_in_an_error_or_nothing(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
    ) {
        prop_assert!(all(bytes).is_err());
    }
}
