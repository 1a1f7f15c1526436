//! `index.json`: which worlds there are, and what they are called.
//!
//! One entry for each name of a world (`org.opencontainers.image.ref.name`), or a
//! single one without for a world that has none. Replaced as a whole, by a
//! rename, under the exclusive lock; so it can be read without any.

use std::collections::{BTreeMap, HashMap};

use oci_spec::image::{ANNOTATION_REF_NAME, Descriptor, ImageIndex, ImageIndexBuilder, MediaType};

use super::document::digest_of;
use super::folder;
use super::layout::Store;
use super::lock::Exclusive;
use super::temporary::Temporary;
use crate::digest::Digest;
use crate::json::{self, Limits};
use crate::{Error, ErrorKind, Result};

pub(super) const INDEX_NAME: &str = "index.json";

const LIMITS: Limits = Limits {
    bytes: 64 << 20,
    depth: 16,
    string: 1 << 20,
};

/// The entries of `index.json`, oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Index {
    pub entries: Vec<Descriptor>,
    annotations: Option<HashMap<String, String>>,
}

/// The name of an entry.
pub(super) fn name_of(entry: &Descriptor) -> Option<&str> {
    let annotations = entry.annotations().as_ref()?;
    annotations.get(ANNOTATION_REF_NAME).map(String::as_str)
}

fn set_name(entry: &mut Descriptor, name: Option<&str>) {
    let mut annotations = entry.annotations().clone().unwrap_or_default();
    match name {
        Some(name) => annotations.insert(ANNOTATION_REF_NAME.to_owned(), name.to_owned()),
        None => annotations.remove(ANNOTATION_REF_NAME),
    };
    entry.set_annotations(Some(annotations).filter(|all| !all.is_empty()));
}

impl Index {
    pub fn parse(bytes: &[u8]) -> Result<Index> {
        let index: ImageIndex =
            json::parse(bytes, &LIMITS).map_err(|error| error.within(INDEX_NAME))?;
        match (index.schema_version(), index.media_type()) {
            (2, None | Some(MediaType::ImageIndex)) => Ok(Index {
                entries: index.manifests().clone(),
                annotations: index.annotations().clone(),
            }),
            _ => Err(Error::new(
                ErrorKind::CorruptWorld,
                format!("{INDEX_NAME} is no OCI image index"),
            )),
        }
    }

    /// As it stands in the file: keys sorted, so that equal indexes are equal bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let index = ImageIndexBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageIndex)
            .manifests(self.entries.clone());
        let index = match &self.annotations {
            Some(annotations) => index.annotations(annotations.clone()),
            None => index,
        };
        let index = index
            .build()
            .map_err(|error| Error::caused_by(ErrorKind::Internal, "make an index", error))?;
        let bytes = json::to_bytes(&index)?;
        // What is written must be readable.
        match json::check(&bytes, &LIMITS) {
            Ok(()) => Ok(bytes),
            Err(error) => Err(Error::new(
                ErrorKind::NoSpace,
                format!("{INDEX_NAME} would be too large ({error}): remove worlds"),
            )),
        }
    }

    /// The entries of one digest.
    pub fn of(&self, digest: &Digest) -> impl Iterator<Item = &Descriptor> {
        self.entries
            .iter()
            .filter(|entry| digest_of(entry).is_ok_and(|found| found == *digest))
    }

    /// The digest that a name stands for. An entry that another tool wrote may have a name
    /// without a tag: that is found by its own words.
    pub fn named(&self, name: &str) -> Result<Option<Digest>> {
        let mut found = None;
        for entry in &self.entries {
            if name_of(entry) != Some(name) {
                continue;
            }
            let digest = digest_of(entry).map_err(|error| error.within(INDEX_NAME))?;
            if found.replace(digest).is_some_and(|other| other != digest) {
                return Err(Error::new(
                    ErrorKind::CorruptWorld,
                    format!("two worlds are called {name:?}: say which by its digest"),
                ));
            }
        }
        Ok(found)
    }

    /// Takes a name from the world that has it, which stays, without a name if that was its
    /// last. Returns that world.
    pub fn take_name(&mut self, name: &str) -> Result<Option<Digest>> {
        let Some(digest) = self.named(name)? else {
            return Ok(None);
        };
        let is_last = self.of(&digest).all(|entry| name_of(entry) == Some(name));
        let mut keep = is_last;
        self.entries.retain_mut(|entry| {
            if name_of(entry) != Some(name) {
                return true;
            }
            set_name(entry, None);
            std::mem::take(&mut keep)
        });
        Ok(Some(digest))
    }

    /// Adds an entry under a name that is free, or without one. All entries of a world get the
    /// newest annotations.
    pub fn add(&mut self, entry: &Descriptor, name: Option<&str>) -> Result<()> {
        let digest = digest_of(entry)?;
        let mut names: Vec<_> = self.of(&digest).map(name_of).collect();
        names.push(name);
        let mut names: Vec<_> = names.into_iter().flatten().map(str::to_owned).collect();
        names.sort();
        names.dedup();
        let is_it = |entry: &Descriptor| digest_of(entry).is_ok_and(|found| found == digest);
        let place = self.entries.iter().position(is_it);
        let place = place.unwrap_or(self.entries.len());
        self.remove(&digest);
        let called = |name: Option<&String>| {
            let mut entry = entry.clone();
            set_name(&mut entry, name.map(String::as_str));
            entry
        };
        let mut entries: Vec<_> = names.iter().map(|name| called(Some(name))).collect();
        if entries.is_empty() {
            entries.push(called(None));
        }
        self.entries.splice(place..place, entries);
        Ok(())
    }

    /// Removes all entries of a digest.
    pub fn remove(&mut self, digest: &Digest) {
        self.entries
            .retain(|entry| digest_of(entry).map_or(true, |found| found != *digest));
    }

    /// The digests in it, oldest first, each with its first entry and its names.
    pub fn worlds(&self) -> Vec<(Digest, &Descriptor, Vec<&str>)> {
        let mut places = BTreeMap::new();
        let mut worlds: Vec<(Digest, &Descriptor, Vec<&str>)> = Vec::new();
        for entry in &self.entries {
            let Ok(digest) = digest_of(entry) else {
                continue; // What cannot be in the store is for fsck to tell.
            };
            let place = *places.entry(digest).or_insert(worlds.len());
            if place == worlds.len() {
                worlds.push((digest, entry, Vec::new()));
            }
            worlds[place].2.extend(name_of(entry));
        }
        worlds
    }
}

impl Store {
    pub(super) fn index(&self) -> Result<Index> {
        match folder::read(self.root(), INDEX_NAME, LIMITS.bytes)? {
            Some(bytes) => Index::parse(&bytes),
            None => Err(Error::new(
                ErrorKind::CorruptWorld,
                format!("{INDEX_NAME} is missing: put it back from a backup"),
            )),
        }
    }

    pub(super) fn write_index(&self, index: &Index, _lock: &Exclusive) -> Result<()> {
        let bytes = index.to_bytes()?;
        Temporary::create(self, "index")?.replace(&bytes, INDEX_NAME)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::super::document::descriptor;
    use super::*;

    fn world(number: u8) -> Digest {
        Digest::of(&[number])
    }

    fn entry(number: u8) -> Descriptor {
        let mut entry = descriptor(MediaType::ImageManifest, 1, &world(number)).unwrap();
        let annotations = HashMap::from([("a".to_owned(), "b\u{7f}\"".to_owned())]);
        entry.set_annotations(Some(annotations));
        entry
    }

    /// What may be done to an index; worlds and names are few, so that they meet.
    #[derive(Debug, Clone)]
    enum Change {
        Add(u8, Option<u8>),
        TakeName(u8),
        Remove(u8),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            4 => (0..5u8, proptest::option::of(0..5u8)).prop_map(|(w, n)| Change::Add(w, n)),
            2 => (0..5u8).prop_map(Change::TakeName),
            1 => (0..5u8).prop_map(Change::Remove),
        ]
    }

    /// The same, as simple as can be: worlds, and whose each name is.
    #[derive(Default)]
    struct Model {
        worlds: BTreeSet<Digest>,
        names: BTreeMap<String, Digest>,
    }

    fn apply(change: &Change, index: &mut Index, model: &mut Model) {
        match change {
            Change::Add(number, name) => {
                let name = name.map(|name| format!("n{name}"));
                if let Some(name) = &name {
                    index.take_name(name).unwrap();
                    model.names.insert(name.clone(), world(*number));
                }
                index.add(&entry(*number), name.as_deref()).unwrap();
                model.worlds.insert(world(*number));
            }
            Change::TakeName(name) => {
                let name = format!("n{name}");
                let taken = index.take_name(&name).unwrap();
                assert_eq!(taken, model.names.remove(&name));
            }
            Change::Remove(number) => {
                index.remove(&world(*number));
                model.worlds.remove(&world(*number));
                model.names.retain(|_, owner| *owner != world(*number));
            }
        }
    }

    fn must_agree(index: &Index, model: &Model) {
        let worlds = index.worlds();
        let digests: BTreeSet<_> = worlds.iter().map(|(digest, ..)| *digest).collect();
        assert_eq!(digests, model.worlds);
        for (name, digest) in &model.names {
            assert_eq!(index.named(name).unwrap(), Some(*digest));
        }
        let named: usize = worlds.iter().map(|(_, _, names)| names.len()).sum();
        let unnamed = worlds.iter().filter(|(_, _, names)| names.is_empty());
        assert_eq!(named, model.names.len());
        assert_eq!(index.entries.len(), named + unnamed.count());
    }

    proptest! {
        #[test]
        fn names_move_and_worlds_stay(changes in proptest::collection::vec(change(), 0..40)) {
            let (mut index, mut model) = (Index::default(), Model::default());
            for change in &changes {
                apply(change, &mut index, &mut model);
                must_agree(&index, &model);
            }
            let bytes = index.to_bytes().unwrap();
            let read = Index::parse(&bytes).unwrap();
            prop_assert_eq!(&read, &index);
            prop_assert_eq!(read.to_bytes().unwrap(), bytes);
        }

        #[test]
        fn garbage_is_refused(bytes: Vec<u8>) {
            prop_assert!(Index::parse(&bytes).is_err());
        }
    }

    #[test]
    fn what_another_tool_wrote_about_the_index_stays() {
        let bytes = br#"{"schemaVersion":2,"manifests":[],"annotations":{"k":"v"}}"#;
        let index = Index::parse(bytes).unwrap();
        let written = String::from_utf8(index.to_bytes().unwrap()).unwrap();
        assert!(written.contains("\"k\": \"v\""), "{written}");
    }
}
