//! Pages out of packs, each compared with its hash; decoded frames are kept for the next.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Result;
use crate::memory::PAGE_SIZE;
use crate::memory::frame::{Decoder, FRAME_PAGES};
use crate::memory::index::Index;
use crate::memory::open_packs::OpenPacks;
use crate::memory::pack::PackReader;
use crate::store::Store;

/// Decoded frames that are kept: 64 MiB. Siblings want the same ones within moments.
const KEPT_FRAMES: usize = 1024;

/// A pack by its number in the index, and a frame of it.
type FrameId = (u32, u32);

/// The pages of a world. Can be shared by threads.
pub struct Source<'a> {
    packs: OpenPacks<'a>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    frames: HashMap<FrameId, Arc<Vec<u8>>>,
    /// The oldest first.
    order: VecDeque<FrameId>,
}

impl<'a> Source<'a> {
    /// Of the packs of an index, which are opened when they are needed. Somebody must hold them
    /// by a lease.
    pub fn new(index: &'a Index, store: &'a Store) -> Source<'a> {
        Source {
            packs: OpenPacks::new(index, store),
            kept: Mutex::default(),
        }
    }

    /// Hands `use_pages` the pages from `page` on of a pack: `count`, but none beyond the end
    /// of their frame.
    pub fn with_pages<T>(
        &self,
        (pack, page): (u32, u32),
        count: u64,
        decoder: &mut Decoder,
        use_pages: impl FnOnce(&[u8]) -> T,
    ) -> Result<T> {
        let frame = PackReader::frame_of(page);
        let kept = self.kept().frames.get(&(pack, frame)).cloned();
        if kept.is_none() && count == 1 {
            let reader = self.packs.get(pack)?;
            if reader.is_raw(frame) {
                let mut pages = [0; PAGE_SIZE];
                let read = reader.read_page(page, decoder, &mut pages);
                read.map_err(|error| self.packs.blame(pack, error))?;
                return Ok(use_pages(&pages));
            }
        }
        let kept = match kept {
            Some(kept) => kept,
            None => self.decode((pack, frame), decoder)?,
        };
        let first = page as usize % FRAME_PAGES * PAGE_SIZE;
        let last = (first as u64 + count * PAGE_SIZE as u64).min(kept.len() as u64);
        Ok(use_pages(&kept[first..last as usize]))
    }

    fn decode(&self, (pack, frame): FrameId, decoder: &mut Decoder) -> Result<Arc<Vec<u8>>> {
        let reader = self.packs.get(pack)?;
        let mut pages = Vec::new();
        let read = reader.read_frame(frame, decoder, &mut pages);
        read.map_err(|error| self.packs.blame(pack, error))?;
        let pages = Arc::new(pages);
        let mut kept = self.kept();
        if kept.frames.insert((pack, frame), pages.clone()).is_none() {
            kept.order.push_back((pack, frame));
        }
        if kept.order.len() > KEPT_FRAMES
            && let Some(oldest) = kept.order.pop_front()
        {
            kept.frames.remove(&oldest);
        }
        Ok(pages)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
