//! Packs the memory of a world: pages of the images in, packs and an index out.
//!
//! The images are read in batches of 8 MiB. All cores read, hash and look up the
//! pages of a batch; one thread then gives new pages their places, in order, so
//! that the same memory makes the same packs; all cores compress them; another
//! thread writes. In a second round the pages of packs that are left (see
//! [`stale`](super::stale)) are read and placed again. Only then is the index
//! written, with the packs in the order of their first use. What is held in
//! memory does not grow with the world: a few batches, the hashes of the last
//! three packs, one bit per page of the packs in use.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode, OFlags, openat};

use super::frame::{Encoder, FRAME_PAGES, FRAME_SIZE};
use super::images::Images;
use super::known::Known;
use super::pack::PACK_PAGES;
use super::pack_files::{Finished, Frame, write_packs};
use super::packs::{Met, Packs};
use super::page::{PAGE_SIZE, PageHash, is_zero};
use super::place::Place;
use super::places::{Packed, Places};
use super::plan::{FinishedPlan, Plan};
use super::sharing::Sharing;
use super::stale::{self, Use};
use crate::digest::on_all_cores;
use crate::error::IoContext;
use crate::store::{Lease, Written};
use crate::{Error, ErrorKind, Result};

/// Pages that one core takes at a time.
const PIECE: usize = 256;
/// Pages of a batch.
const BATCH: usize = 2048;
/// Frames that may wait for being written.
const QUEUE: usize = 64;
/// Packs whose pages are looked up in memory: the one being filled and those being written.
const RECENT: usize = 2;

/// Packs the pages of `images` into the store of `lease`, which holds all that is used and
/// written, with pages of those packs that `sharing` allows. `progress` is told how many pages were read since it was told last.
pub fn pack(
    images: &Images,
    lease: &Lease,
    sharing: &Sharing,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Packed> {
    let open_known = || Known::open(lease.store().pages_folder()?);
    let (known, known_by_writer) = (open_known()?, open_known()?);
    let (frames, to_write) = sync_channel(QUEUE);
    let (tell, finished) = channel();
    std::thread::scope(|scope| {
        let writer = std::thread::Builder::new()
            .name("write-packs".into())
            .spawn_scoped(scope, move || {
                write_packs(lease, known_by_writer, sharing, &to_write, &tell)
            })
            .context(|| "start a thread")?;
        let packer = Packer {
            images,
            lease,
            progress,
            known,
            packs: Packs::new(lease, sharing),
            batch: Vec::new(),
            batch_pages: 0,
            buffer: Vec::new(),
            recent: VecDeque::new(),
            filled: PACK_PAGES,
            fresh: Vec::new(),
            fresh_hashes: Vec::new(),
            encoders: Mutex::default(),
            frames,
            finished,
            used: BTreeMap::new(),
            stored: 0,
        };
        let packed = packer.run();
        match writer.join() {
            Ok(Ok(())) => packed,
            Ok(Err(error)) => Err(error),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// A pack that is being filled or written.
struct Recent {
    number: u32,
    pages: HashMap<PageHash, u32>,
}

struct Packer<'a> {
    images: &'a Images,
    lease: &'a Lease,
    progress: &'a (dyn Fn(u64) + Sync),
    known: Known,
    packs: Packs<'a>,
    batch: Vec<Piece>,
    batch_pages: usize,
    buffer: Vec<u8>,
    recent: VecDeque<Recent>,
    /// Pages of the newest pack.
    filled: u32,
    /// Pages that have places, but are not in a frame yet.
    fresh: Vec<u8>,
    fresh_hashes: Vec<PageHash>,
    encoders: Mutex<Vec<Encoder>>,
    frames: SyncSender<Frame>,
    finished: Receiver<Finished>,
    /// For every pack in use, which of its pages are.
    used: BTreeMap<u32, Bitmap>,
    stored: u64,
}

/// Pages of an image that are read together: at most [`PIECE`].
struct Piece {
    file: Arc<File>,
    first: u64,
    count: usize,
}

/// What a core found out about a page.
#[derive(Clone, Copy)]
enum Found {
    At(Place),
    New(PageHash),
}

impl Packer<'_> {
    fn run(mut self) -> Result<Packed> {
        let mut plan = Plan::new(self.temporary()?);
        for image in self.images.files() {
            let file = Arc::new(self.images.open(image.id)?);
            self.add(&file, 0, image.pages, &mut plan)?;
        }
        self.place(&mut plan)?;
        let mut plan = plan.finish()?;
        let left = self.leave_stale();
        let mut again = Plan::new(self.temporary()?);
        if left.contains(&true) {
            // An old pack met only now could break the rules by which packs were left.
            self.packs.only_own();
            self.add_again(&left, &mut plan, &mut again)?;
            self.place(&mut again)?;
        }
        let (images, lease, stored_pages) = (self.images, self.lease, self.stored);
        let packs = self.end()?;
        let again = again.finish()?;
        let mut places = Places::new(plan, again, left, packs);
        places.write_index(images, lease, stored_pages)
    }

    fn temporary(&self) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let folder = self.lease.store().pages_folder()?;
        let file = openat(&folder, ".", flags, Mode::RUSR | Mode::WUSR);
        Ok(File::from(file.context(|| "make a temporary file")?))
    }

    /// Adds pages of a file to the batch; places the batch when it is full.
    fn add(&mut self, file: &Arc<File>, first: u64, count: u64, plan: &mut Plan) -> Result<()> {
        let mut at = first;
        while at < first + count {
            let count = (first + count - at).min(PIECE as u64) as usize;
            self.batch.push(Piece {
                file: file.clone(),
                first: at,
                count,
            });
            self.batch_pages += count;
            at += count as u64;
            if self.batch_pages >= BATCH {
                self.place(plan)?;
            }
        }
        Ok(())
    }

    /// Adds the pages again that were found in packs that are left.
    fn add_again(
        &mut self,
        left: &[bool],
        plan: &mut FinishedPlan,
        again: &mut Plan,
    ) -> Result<()> {
        let mut runs = plan.runs()?;
        for image in self.images.files() {
            let file = Arc::new(self.images.open(image.id)?);
            let mut at = 0;
            while at < image.pages {
                let run = runs.take(image.pages - at)?.ok_or_else(plan_is_short)?;
                if run.place.is_in(left) {
                    self.add(&file, at, run.count.into(), again)?;
                }
                at += u64::from(run.count);
            }
        }
        Ok(())
    }

    /// Finds or makes the places of the pages of the batch.
    fn place(&mut self, plan: &mut Plan) -> Result<()> {
        self.await_packs()?;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(self.batch_pages * PAGE_SIZE, 0);
        let mut found = vec![Found::At(Place::Zero); self.batch_pages];
        self.look(&mut buffer, &mut found)?;
        (self.progress)(self.batch_pages as u64);
        for (page, found) in buffer.chunks(PAGE_SIZE).zip(found) {
            let place = match found {
                Found::At(place) => place,
                Found::New(hash) => self.new_place(hash, page),
            };
            if let Place::Pack { pack, page } = place {
                self.used.entry(pack).or_default().set(page);
            }
            plan.push(place)?;
        }
        self.buffer = buffer;
        self.batch.clear();
        self.batch_pages = 0;
        self.send(self.fresh_hashes.len() / FRAME_PAGES)
    }

    /// Reads the pages of the batch and looks for them, on all cores.
    fn look(&self, mut buffer: &mut [u8], mut found: &mut [Found]) -> Result<()> {
        let mut slots = Vec::with_capacity(self.batch.len());
        for piece in &self.batch {
            let (pages, rest) = buffer.split_at_mut(piece.count * PAGE_SIZE);
            let (places, others) = found.split_at_mut(piece.count);
            (buffer, found) = (rest, others);
            slots.push((piece, Mutex::new((pages, places))));
        }
        let (packs, known) = (&self.packs, &self.known);
        on_all_cores(&slots, |(piece, slot)| {
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            let (pages, places) = &mut *slot;
            let at = piece.first * PAGE_SIZE as u64;
            let read = piece.file.read_exact_at(pages, at);
            read.context(|| "read the pages of a process")?;
            for (page, found) in pages.chunks(PAGE_SIZE).zip(places.iter_mut()) {
                if !is_zero(page) {
                    let hash = PageHash::of(page);
                    let place = packs.find(known, &hash)?;
                    *found = place.map_or(Found::New(hash), Found::At);
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    /// The place of a page that no finished pack has.
    fn new_place(&mut self, hash: PageHash, content: &[u8]) -> Place {
        for recent in &self.recent {
            if let Some(page) = recent.pages.get(&hash) {
                let (pack, page) = (recent.number, *page);
                return Place::Pack { pack, page };
            }
        }
        if self.filled == PACK_PAGES {
            self.filled = 0;
            self.recent.push_back(Recent {
                number: self.packs.begin(),
                pages: HashMap::new(),
            });
        }
        let page = self.filled;
        self.filled += 1;
        self.stored += 1;
        self.fresh.extend_from_slice(content);
        self.fresh_hashes.push(hash);
        let newest = self.recent.len() - 1;
        let newest = &mut self.recent[newest];
        newest.pages.insert(hash, page);
        Place::Pack {
            pack: newest.number,
            page,
        }
    }

    /// Compresses this many frames of fresh pages on all cores, and has them written.
    fn send(&mut self, frames: usize) -> Result<()> {
        let pages = self.fresh.chunks(FRAME_SIZE);
        let work: Vec<_> = pages.zip(self.fresh_hashes.chunks(FRAME_PAGES)).collect();
        let encoders = &self.encoders;
        let encoded = on_all_cores(&work[..frames], |(pages, hashes)| {
            let idle = || encoders.lock().unwrap_or_else(PoisonError::into_inner);
            let waiting = idle().pop();
            let mut encoder = waiting.map_or_else(Encoder::new, Ok)?;
            let stored = encoder.encode(pages)?;
            idle().push(encoder);
            Ok(Frame {
                stored,
                hashes: hashes.to_vec(),
            })
        })?;
        for frame in encoded {
            self.frames.send(frame).map_err(|_| writer_has_ended())?;
        }
        let done = frames * FRAME_SIZE;
        self.fresh.drain(..done.min(self.fresh.len()));
        let done = frames * FRAME_PAGES;
        self.fresh_hashes.drain(..done.min(self.fresh_hashes.len()));
        Ok(())
    }

    /// Waits until all packs but the last few are written: their pages are known then.
    fn await_packs(&mut self) -> Result<()> {
        while self.recent.len() > RECENT {
            let finished = self.finished.recv().map_err(|_| writer_has_ended())?;
            self.take_finished(finished);
            self.known.refresh()?;
        }
        Ok(())
    }

    fn take_finished(&mut self, finished: Finished) {
        if let Some(pack) = self.recent.pop_front() {
            let Written { digest, size, .. } = finished.written;
            self.packs.finish(pack.number, digest, finished.pages, size);
        }
    }

    /// Chooses packs to leave: for every number so far whether it is left.
    fn leave_stale(&mut self) -> Vec<bool> {
        let met = self.packs.all();
        let old: Vec<(u32, Use)> = (0..)
            .zip(&met)
            .filter(|(_, pack)| !pack.own)
            .filter_map(|(number, pack)| {
                let used = self.used.get(&number)?.count();
                let pages = pack.pages;
                Some((number, Use { used, pages }))
            })
            .collect();
        let uses: Vec<Use> = old.iter().map(|(_, pack)| *pack).collect();
        let mut left = vec![false; met.len()];
        for ((number, _), leave) in old.iter().zip(stale::choose(&uses, self.stored)) {
            left[*number as usize] = leave;
        }
        left
    }

    /// Ends the last pack. Returns all packs met.
    fn end(mut self) -> Result<Vec<Met>> {
        self.send(self.fresh_hashes.len().div_ceil(FRAME_PAGES))?;
        // No more frames: the writer ends when it has written those that wait.
        self.frames = sync_channel(0).0;
        while let Ok(finished) = self.finished.recv() {
            self.take_finished(finished);
        }
        match self.recent.is_empty() {
            true => Ok(self.packs.all()),
            false => Err(writer_has_ended()),
        }
    }
}

/// Which pages of a pack are used.
struct Bitmap(Vec<u64>);

impl Default for Bitmap {
    fn default() -> Bitmap {
        Bitmap(vec![0; PACK_PAGES as usize / 64])
    }
}

impl Bitmap {
    fn set(&mut self, page: u32) {
        // A pack has no pages beyond.
        if let Some(word) = self.0.get_mut(page as usize / 64) {
            *word |= 1 << (page % 64);
        }
    }

    fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }
}

/// Only seen if the writer told no error of its own.
fn writer_has_ended() -> Error {
    Error::new(
        ErrorKind::Internal,
        "the thread that writes packs has ended",
    )
}

fn plan_is_short() -> Error {
    Error::new(ErrorKind::Internal, "the plan of pages is too short")
}
