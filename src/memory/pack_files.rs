//! The thread that writes packs: frames come in order, packs go into the store.
//!
//! Hashing a pack's bytes for its digest, and writing them, is one thread's work;
//! it goes on beside the compression of the pages that follow.

use std::sync::mpsc::{Receiver, Sender};

use super::known::Known;
use super::pack::{PACK_PAGES, PackWriter};
use super::page::PageHash;
use super::sharing::Sharing;
use crate::Result;
use crate::digest::Digest;
use crate::store::{BlobWriter, Lease, Written};

/// An encoded frame on its way into a pack.
pub struct Frame {
    /// Its stored form.
    pub stored: Vec<u8>,
    /// The hashes of its pages.
    pub hashes: Vec<PageHash>,
}

/// A pack that is in the store.
pub struct Finished {
    /// Its digest and size.
    pub written: Written,
    /// How many pages it has.
    pub pages: u32,
}

/// Writes packs until there are no more frames. Every pack is filled before the next is
/// begun; its pages are known when it is told of.
pub fn write_packs(
    lease: &Lease,
    mut known: Known,
    sharing: &Sharing,
    frames: &Receiver<Frame>,
    finished: &Sender<Finished>,
) -> Result<()> {
    let mut current: Option<PackWriter<BlobWriter>> = None;
    for frame in frames {
        let mut pack = match current.take() {
            Some(pack) => pack,
            None => PackWriter::new(lease.write_blob()?)?,
        };
        pack.push(&frame.stored, &frame.hashes)?;
        if pack.pages() < PACK_PAGES {
            current = Some(pack);
        } else if finished
            .send(finish(pack, lease, sharing, &mut known)?)
            .is_err()
        {
            return Ok(()); // The packer has given up.
        }
    }
    if let Some(pack) = current {
        let _ = finished.send(finish(pack, lease, sharing, &mut known)?);
    }
    Ok(())
}

fn finish(
    pack: PackWriter<BlobWriter>,
    lease: &Lease,
    sharing: &Sharing,
    known: &mut Known,
) -> Result<Finished> {
    let (blob, hashes) = pack.finish()?;
    let written = blob.finish()?;
    let pages = hashes.len() as u32;
    if let Err(error) = make_known(written.digest, &hashes, sharing, lease, known) {
        // Its pages may be stored again some day: no reason to lose a world.
        tracing::warn!(
            "the pages of {} do not become known: {error}",
            written.digest
        );
    }
    Ok(Finished { written, pages })
}

/// Makes the pages of a pack known to all, and to their lineage.
pub(super) fn make_known(
    pack: Digest,
    hashes: &[PageHash],
    sharing: &Sharing,
    lease: &Lease,
    known: &mut Known,
) -> Result<()> {
    known.add(pack, hashes, exists_in(lease))?;
    known.add(pack, &sharing.own(hashes), exists_in(lease))
}

/// Tells whether the store has a pack.
fn exists_in(lease: &Lease) -> impl Fn(&Digest) -> bool {
    |pack| {
        lease
            .store()
            .blob_size(pack)
            .is_ok_and(|size| size.is_some())
    }
}
