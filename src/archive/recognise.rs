//! What a tar is, told by what is in it.
//!
//! A tar of a world has `world.json`, as its first member where we wrote it, as its
//! last where containerd did. A layout has `index.json`, anywhere. All else is refused
//! with a sentence that says what it is, as far as that can be told.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::layout::{INDEX, LAYOUT, Layout};
use super::source::Source;
use super::tar_reader::{Member, MemberKind, TarReader, corrupt};
use crate::digest::Digest;
use crate::store::MAX_DOCUMENT;
use crate::world::manifest::{LIMITS, MANIFEST_NAME, Manifest};
use crate::world::spec;
use crate::{Error, ErrorKind, Result, json};

/// What the archives of other tools have.
pub(super) const CONFIG_DUMP: &str = "config.dump";
pub(super) const SPEC_DUMP: &str = "spec.dump";
/// Where such an archive has CRIU's images.
pub(super) const CHECKPOINT: &str = "checkpoint";
/// What runc leaves beside CRIU's images.
const DESCRIPTORS: &str = "descriptors.json";

/// What a tar holds.
pub(super) enum Found {
    /// The files of a world directory, under whichever paths.
    World(Box<Manifest>),
    /// An OCI image layout.
    Layout(Box<Layout>),
}

/// Looks through a tar until it is known.
pub(super) fn recognise(source: &Source) -> Result<Found> {
    let mut tar = source.tar()?;
    let mut signs = Signs::default();
    while let Some(member) = tar.next()? {
        if member.path == MANIFEST_NAME && member.kind == MemberKind::File {
            let bytes = tar.read(&member, LIMITS.bytes)?;
            let manifest = Manifest::parse(&bytes).map_err(|error| tar.locate(error))?;
            return Ok(Found::World(Box::new(manifest)));
        }
        signs
            .take(&mut tar, &member)
            .map_err(|error| error.within(source.name()))?;
    }
    signs
        .conclude(source)
        .map_err(|error: Error| error.within(source.name()))
}

/// What was seen on the way.
#[derive(Default)]
struct Signs {
    layout: bool,
    index: Option<Vec<u8>>,
    blobs: BTreeMap<Digest, (u64, u64)>,
    /// What is no file, among a layout's members.
    odd: Option<Member>,
    config_dump: bool,
    manager: Option<String>,
    images: bool,
    descriptors: bool,
}

impl Signs {
    fn take(&mut self, tar: &mut TarReader, member: &Member) -> Result<()> {
        if let MemberKind::Other(_) = member.kind {
            self.odd.get_or_insert_with(|| member.clone());
            return Ok(());
        }
        if member.kind == MemberKind::Folder {
            return Ok(());
        }
        let path = member.path.as_str();
        if let Some(hex) = path.strip_prefix("blobs/sha256/") {
            if let Ok(digest) = format!("sha256:{hex}").parse() {
                self.blobs.insert(digest, (member.offset, member.size));
            }
            return Ok(());
        }
        match path {
            LAYOUT => self.layout = true,
            INDEX => self.index = Some(tar.read(member, MAX_DOCUMENT)?),
            CONFIG_DUMP => self.config_dump = true,
            SPEC_DUMP => self.manager = manager(&tar.read(member, spec::LIMITS.bytes)?),
            DESCRIPTORS => self.descriptors = true,
            _ => {}
        }
        self.images |= path.ends_with("inventory.img");
        self.descriptors |= path == format!("{CHECKPOINT}/{DESCRIPTORS}");
        Ok(())
    }

    fn conclude(self, source: &Source) -> Result<Found> {
        match (self.layout, self.index) {
            (true, Some(index)) => {
                if let Some(odd) = self.odd {
                    odd.must_be_plain()?;
                }
                if !source.is_plain() {
                    return Err(Error::new(
                        ErrorKind::InvalidInput,
                        "a compressed tar of an OCI layout: decompress it first, what is in it is \
                         compressed already",
                    ));
                }
                Layout::new(index, self.blobs).map(|layout| Found::Layout(Box::new(layout)))
            }
            (true, None) => Err(corrupt("an OCI layout without index.json")),
            (false, _) if self.config_dump => Err(foreign(self.manager.as_deref())),
            (false, _) if self.images && self.descriptors => Err(Error::new(
                ErrorKind::ForeignWorld,
                "this is a checkpoint by runc or crun (CRIU's images and descriptors.json, no \
                 world.json): restore it with the runtime that made it",
            )),
            _ => Err(Error::new(
                ErrorKind::ForeignWorld,
                "this holds no world: no world.json, no OCI layout, no checkpoint archive",
            )),
        }
    }
}

/// An archive as others write it.
fn foreign(manager: Option<&str>) -> Error {
    let whose = match manager {
        Some("libpod") => {
            "podman (no world.json): `podman container restore --import FILE` brings it back"
        }
        Some("cri-o") => {
            "CRI-O (no world.json): restore it on a node with CRI-O, as an image made by \
             `checkpointctl build`"
        }
        _ => {
            "containerd's CRI or another tool (no world.json): restore it on a node with the \
             runtime that made it, as an image made by `checkpointctl build`"
        }
    };
    Error::new(
        ErrorKind::ForeignWorld,
        format!("this is a checkpoint archive by {whose}"),
    )
}

/// Who made an archive, as its `spec.dump` says.
fn manager(spec: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Annotated {
        #[serde(default)]
        annotations: BTreeMap<String, String>,
    }
    let mut spec: Annotated = json::parse(spec, &spec::LIMITS).ok()?;
    spec.annotations.remove("io.container.manager")
}
