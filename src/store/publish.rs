//! Changing which worlds there are, and what they are called.
//!
//! Order: blobs durable, then the manifest, then `index.json`. Whatever is cut
//! short leaves the old index, with all that it needs, or the new one.

use std::collections::BTreeMap;

use oci_spec::image::Descriptor;
use serde::Serialize;

use super::document::{Document, descriptor};
use super::index::{Index, name_of};
use super::layout::Store;
use super::lease::Lease;
use super::reach::Reach;
use super::reference::{Reference, WorldName};
use crate::digest::Digest;
use crate::{Error, ErrorKind, Result};

/// A world that was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Published {
    /// Of the manifest: the world's own.
    pub digest: Digest,
    /// Of the manifest, in bytes.
    pub size: u64,
    /// Whether the index did not have it before.
    pub new: bool,
    /// The world that had the name before; it is still there.
    pub displaced: Option<Digest>,
}

/// What was removed from the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// The world.
    pub digest: Digest,
    /// The names it lost.
    pub names: Vec<String>,
    /// Whether the world itself is gone; its blobs go with the next [`Store::gc`].
    pub gone: bool,
}

impl Store {
    /// Makes a world (or a base image: any OCI manifest or index) part of the store, durably.
    ///
    /// Every blob the manifest names must have been written; `lease` holds the manifest.
    /// `annotations` go to the entry in `index.json`. A name that another world has moves;
    /// that one stays, without a name if it was its last.
    ///
    /// [`ErrorKind::CorruptWorld`] where the bytes are no manifest or a blob is missing or has
    /// another size than the manifest says.
    pub fn publish(
        &self,
        lease: &Lease,
        manifest: &[u8],
        annotations: &BTreeMap<String, String>,
        name: Option<&WorldName>,
    ) -> Result<Published> {
        let document = Document::parse(manifest)
            .map_err(|error| error.within("the manifest to be published"))?;
        let written = lease.put(manifest)?;
        let entry = entry_for(&document, written.digest, written.size, annotations)?;
        let mut reach = Reach::of(self, &entry)?;
        // Long before the lock: this waits for the disk.
        self.sync()?;
        let name = name.map(WorldName::to_string);
        let (new, displaced) = self.change_index(|index| {
            // Only now can nothing be swept any more.
            reach.check_presence(self);
            reach.must_be_sound(Some(written.digest))?;
            let new = index.of(&written.digest).next().is_none();
            let displaced = match &name {
                Some(name) => index.take_name(name)?,
                None => None,
            };
            index.add(&entry, name.as_deref())?;
            Ok((new, displaced.filter(|other| *other != written.digest)))
        })?;
        Ok(Published {
            digest: written.digest,
            size: written.size,
            new,
            displaced,
        })
    }

    /// Gives a world one more name. Returns the world that had it before.
    pub fn tag(&self, world: &Reference, name: &WorldName) -> Result<Option<Digest>> {
        let name = name.to_string();
        self.change_index(|index| {
            let digest = index.resolve(world)?;
            let Some(entry) = index.of(&digest).next().cloned() else {
                return Err(Error::new(ErrorKind::Internal, "a world without an entry"));
            };
            let displaced = index.take_name(&name)?;
            index.add(&entry, Some(&name))?;
            Ok(displaced.filter(|other| *other != digest))
        })
    }

    /// Takes a name from a world, which stays. Returns that world.
    pub fn untag(&self, name: &WorldName) -> Result<Digest> {
        self.change_index(|index| {
            let taken = index.take_name(&name.to_string())?;
            taken.ok_or_else(|| {
                Error::new(ErrorKind::NotFound, format!("no world is called {name}"))
            })
        })
    }

    /// Removes a name, and with its last name (or by its digest) the world. Its blobs stay
    /// until the next [`Store::gc`], and as long as a lease holds them.
    ///
    /// [`ErrorKind::WrongState`] where a world is meant by its digest and has several names,
    /// unless `force`.
    pub fn remove(&self, world: &Reference, force: bool) -> Result<Removed> {
        self.change_index(|index| index.take_out(world, force))
    }

    fn change_index<T>(&self, change: impl FnOnce(&mut Index) -> Result<T>) -> Result<T> {
        let lock = self.lock_exclusive()?;
        let changed = self.index().and_then(|old| {
            let mut index = old.clone();
            let result = change(&mut index)?;
            if index != old {
                self.write_index(&index, &lock)?;
            }
            Ok(result)
        });
        changed.map_err(|error| self.blame(error))
    }
}

impl Index {
    fn take_out(&mut self, world: &Reference, force: bool) -> Result<Removed> {
        let digest = self.resolve(world)?;
        let names: Vec<_> = self.of(&digest).filter_map(name_of).collect();
        let names: Vec<_> = names.into_iter().map(str::to_owned).collect();
        let by_name = self.name_meant(world).filter(|name| names.contains(name));
        if let (Some(name), true) = (by_name, names.len() > 1) {
            self.take_name(&name)?;
            return Ok(Removed {
                digest,
                names: vec![name],
                gone: false,
            });
        }
        if names.len() > 1 && !force {
            return Err(Error::new(
                ErrorKind::WrongState,
                format!(
                    "{digest} has several names ({}): remove them, or use force",
                    names.join(", ")
                ),
            ));
        }
        self.remove(&digest);
        Ok(Removed {
            digest,
            names,
            gone: true,
        })
    }
}

fn entry_for(
    document: &Document,
    digest: Digest,
    size: u64,
    annotations: &BTreeMap<String, String>,
) -> Result<Descriptor> {
    let mut entry = descriptor(document.media_type(), size, &digest)?;
    entry.set_artifact_type(document.artifact_type().cloned());
    if !annotations.is_empty() {
        entry.set_annotations(Some(annotations.clone().into_iter().collect()));
    }
    Ok(entry)
}
