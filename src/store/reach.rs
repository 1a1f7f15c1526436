//! What is needed: everything that manifests and indexes lead to.

use std::collections::{BTreeMap, BTreeSet};

use oci_spec::image::{Descriptor, MediaType};

use super::document::{Document, MAX_DOCUMENT, digest_of};
use super::finding::{Fault, Finding};
use super::folder;
use super::layout::Store;
use crate::Result;
use crate::digest::Digest;

/// How many documents may lead to one another in a row.
const MAX_DEPTH: usize = 16;

/// One blob that is reached.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reached {
    /// In bytes, as its descriptor says; `None` where only the digest is known.
    pub size: Option<u64>,
    /// A world cannot be read without it.
    pub required: bool,
}

/// All blobs reached from some documents, and what was wrong on the way.
#[derive(Debug, Default)]
pub(super) struct Reach {
    pub blobs: BTreeMap<Digest, Reached>,
    pub faults: BTreeMap<Digest, Fault>,
    /// The documents that were read. A blob met as content may be met as a document later.
    walked: BTreeSet<Digest>,
}

/// A document still to be read.
struct Step {
    digest: Digest,
    /// By its descriptor; without one, it need not be a document at all.
    media_type: Option<MediaType>,
    depth: usize,
}

impl Reach {
    /// Everything one descriptor of the index leads to. Fails where its digest is none of the
    /// store's; what else is wrong is among the faults.
    pub fn of(store: &Store, descriptor: &Descriptor) -> Result<Reach> {
        let digest = digest_of(descriptor)?;
        let media_type = Some(descriptor.media_type().clone());
        let mut reach = Reach::default();
        reach.meet(digest, Some(descriptor.size()), true);
        reach.walk(store, digest, media_type);
        Ok(reach)
    }

    /// A blob of any kind, and what it leads to where it is a document.
    pub fn of_held(store: &Store, digest: Digest) -> Reach {
        let mut reach = Reach::default();
        reach.meet(digest, None, false);
        reach.walk(store, digest, None);
        reach
    }

    /// Takes note of a blob.
    fn meet(&mut self, digest: Digest, size: Option<u64>, required: bool) {
        let known = self
            .blobs
            .entry(digest)
            .or_insert(Reached { size, required });
        known.required |= required;
        if let (Some(expected), Some(found)) = (known.size, size)
            && expected != found
        {
            self.faults
                .entry(digest)
                .or_insert(Fault::Size { found, expected });
        }
        known.size = known.size.or(size);
    }

    fn walk(&mut self, store: &Store, digest: Digest, media_type: Option<MediaType>) {
        let mut todo = vec![Step {
            digest,
            media_type,
            depth: 1,
        }];
        while let Some(step) = todo.pop() {
            if !self.walked.insert(step.digest) {
                continue;
            }
            match self.open(store, &step) {
                Ok(Some(document)) => self.descend(&step, &document, &mut todo),
                Ok(None) => {}
                Err(fault) => {
                    self.faults.entry(step.digest).or_insert(fault);
                }
            }
        }
    }

    fn descend(&mut self, step: &Step, document: &Document, todo: &mut Vec<Step>) {
        let children = match document.children() {
            Ok(children) => children,
            Err(error) => {
                let why = error.to_string();
                self.faults.insert(step.digest, Fault::Undecodable { why });
                return;
            }
        };
        for child in children {
            self.meet(child.digest, Some(child.size), child.required);
            if let Some(media_type) = child.document {
                todo.push(Step {
                    digest: child.digest,
                    media_type: Some(media_type),
                    depth: step.depth + 1,
                });
            }
        }
    }

    /// Reads a document; `None` where there is none and none need be.
    fn open(&self, store: &Store, step: &Step) -> Result<Option<Document>, Fault> {
        let reached = self.blobs.get(&step.digest);
        let required = reached.is_some_and(|reached| reached.required);
        let blob = match store.blob_if_there(&step.digest) {
            Ok(Some(blob)) => blob,
            Ok(None) if required => return Err(Fault::Missing),
            Ok(None) => return Ok(None),
            Err(_) if step.media_type.is_none() => return Ok(None),
            Err(error) => return Err(Fault::of_error(&error)),
        };
        if let Some(expected) = reached.and_then(|reached| reached.size)
            && expected != blob.size
        {
            let found = blob.size;
            return Err(Fault::Size { found, expected });
        }
        if step.media_type.is_none() && blob.size > MAX_DOCUMENT as u64 {
            return Ok(None);
        }
        if step.depth > MAX_DEPTH {
            return Err(Fault::TooDeep);
        }
        if blob.size > MAX_DOCUMENT as u64 {
            let why = format!("{} bytes, at most {MAX_DOCUMENT} are allowed", blob.size);
            return Err(Fault::Undecodable { why });
        }
        let bytes = folder::read_open(&blob.file, blob.size, MAX_DOCUMENT)
            .map_err(|error| Fault::of_error(&error))?;
        decode(&bytes, step)
    }

    /// Adds faults for the blobs that are missing or of the wrong size.
    pub fn check_presence(&mut self, store: &Store) {
        for (digest, reached) in &self.blobs {
            let fault = match (store.blob_size(digest), reached.size) {
                (Ok(None), _) if reached.required => Fault::Missing,
                (Ok(Some(found)), Some(expected)) if found != expected => {
                    Fault::Size { found, expected }
                }
                (Err(error), _) => Fault::of_error(&error),
                _ => continue,
            };
            self.faults.entry(*digest).or_insert(fault);
        }
    }

    /// Fails on the first fault, as one that `world` cannot be read for.
    pub fn must_be_sound(&self, world: Option<Digest>) -> Result<()> {
        match self.faults.iter().next() {
            None => Ok(()),
            Some((digest, fault)) => Err(Finding::Blob {
                digest: *digest,
                fault: fault.clone(),
                worlds: world.into_iter().collect(),
            }
            .into()),
        }
    }
}

fn decode(bytes: &[u8], step: &Step) -> Result<Option<Document>, Fault> {
    let Some(expected) = &step.media_type else {
        // Held by a lease: it protects more than need be at worst.
        return Ok(Document::parse(bytes).ok());
    };
    let found = Digest::of(bytes);
    if found != step.digest {
        return Err(Fault::Corrupt { found });
    }
    let document = Document::parse(bytes).map_err(|error| Fault::Undecodable {
        why: error.to_string(),
    })?;
    match document.can_be(expected) {
        true => Ok(Some(document)),
        false => Err(Fault::MediaType {
            expected: expected.to_string().chars().take(200).collect(),
            found: document.media_type().to_string(),
        }),
    }
}
