//! Reading packs in full: to verify a world, and to believe what was fetched.

use super::frame::Decoder;
use super::index::Index;
use super::known::Known;
use super::open_packs::OpenPacks;
use super::pack::PackReader;
use super::pack_files::make_known;
use super::page::PageHash;
use super::sharing::Sharing;
use crate::Result;
use crate::digest::{Digest, on_all_cores};
use crate::store::{Lease, Store};

/// Frames that one core reads at a time.
const STEP: usize = 64;

/// Reads every page of every pack that an index refers to. That the index is within the
/// packs is known since it was read. `progress` is told pages.
pub fn verify(index: &Index, store: &Store, progress: &(dyn Fn(u64) + Sync)) -> Result<()> {
    let packs = OpenPacks::new(index, store);
    for number in 0..index.packs().len() as u32 {
        let pack = packs.get(number)?;
        read_all(&pack, progress).map_err(|error| packs.blame(number, error))?;
    }
    Ok(())
}

/// Decodes and hashes all pages of a pack, on all cores. Returns their hashes, which are
/// those that the pack has for them.
fn read_all(pack: &PackReader, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<PageHash>> {
    let steps: Vec<u32> = (0..pack.frames()).step_by(STEP).collect();
    let hashes = on_all_cores(&steps, |first| {
        let mut decoder = Decoder::new()?;
        let mut pages = Vec::new();
        let mut hashes = Vec::new();
        for frame in *first..(first + STEP as u32).min(pack.frames()) {
            pack.read_frame(frame, &mut decoder, &mut pages)?;
            hashes.extend(pack.hashes(frame)?);
        }
        progress(hashes.len() as u64);
        Ok(hashes)
    })?;
    Ok(hashes.concat())
}

/// Makes the pages of packs known that came from elsewhere: reads them in full first,
/// except those that are known already. `progress` is told pages.
pub fn admit(
    packs: &[Digest],
    lease: &Lease,
    sharing: &Sharing,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let mut known = Known::open(lease.store().pages_folder()?)?;
    for digest in packs {
        if known.has(digest) || lease.hold(digest)?.is_none() {
            continue;
        }
        let read = || {
            let pack = PackReader::open(lease.store().open_blob(digest)?.file)?;
            read_all(&pack, progress)
        };
        let hashes = read().map_err(|error| error.within(format!("pack {digest}")))?;
        make_known(*digest, &hashes, sharing, lease, &mut known)?;
    }
    Ok(())
}

/// Forgets which pages are known; [`admit`] makes those of packs known again.
pub fn forget(lease: &Lease) -> Result<()> {
    Known::open(lease.store().pages_folder()?)?.clear()
}
