//! One address space: its userfaultfd, what it lacks, and how that is filled.
//!
//! All of this runs on one thread. An event is read, and with that its cause
//! goes on, before anything else is filled: so no page is filled with what was
//! given up. While an event is on its way the kernel refuses every filling
//! (EAGAIN), and a fault that was read before it is looked up again after it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;

use super::missing::Missing;
use super::source::Source;
use super::streams::Streams;
use crate::Result;
use crate::error::IoContext;
use crate::memory::addresses::Addresses;
use crate::memory::frame::{Decoder, FRAME_PAGES};
use crate::memory::place::Place;
use crate::sys::uffd::{self, Event, Filled};

const PAGE: u64 = 4096;
/// Most zero pages at once: one table of pages.
const MOST_ZEROS: u64 = 512;
/// Zero pages at a fault where the world has none: they take no memory.
const ZEROS: u64 = 16;
/// Most pages that a thread waits for when it walks.
const BATCH: u64 = 64;
/// Pages of a frame.
const FRAME: u64 = FRAME_PAGES as u64;
/// Most runs that wait to be filled ahead.
const MOST_AHEAD: usize = 64;

/// What came of a filling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// So many pages from the one asked for on are no longer lacking; at least one.
    Done(u64),
    /// The kernel takes nothing before its events are read, or has no memory.
    Busy,
    /// No task lives in it any more.
    Gone,
}

/// Where a run waits to be filled.
enum Queue {
    Ahead,
    Expected,
}

/// An address space.
pub struct Space {
    /// Its number on its line.
    pub number: u64,
    uffd: OwnedFd,
    missing: Missing,
    addresses: Arc<Addresses>,
    streams: Streams,
    /// Pages that threads wait for.
    faults: VecDeque<u64>,
    /// Runs to fill when nobody waits, first page and count: what goes on behind faults, and
    /// after it what is expected.
    ahead: VecDeque<(u64, u64)>,
    expected: VecDeque<(u64, u64)>,
    /// Pages filled with data.
    pub filled: u64,
    /// Whether CRIU has done its part. Before that only pages that somebody waits for are
    /// filled: the mapping of any other may not be registered yet.
    pub restored: bool,
}

impl Space {
    /// One that lacks all of `missing`.
    pub fn new(number: u64, uffd: OwnedFd, missing: Missing, addresses: Arc<Addresses>) -> Space {
        Space {
            number,
            uffd,
            missing,
            addresses,
            streams: Streams::default(),
            faults: VecDeque::new(),
            ahead: VecDeque::new(),
            expected: VecDeque::new(),
            filled: 0,
            restored: false,
        }
    }

    /// How many pages it lacks.
    pub fn missing(&self) -> u64 {
        self.missing.pages()
    }

    /// Whether a task lives in it.
    pub fn is_alive(&self) -> bool {
        uffd::is_alive(self.uffd.as_fd())
    }

    /// Reads and applies everything that has happened. Returns the children, which
    /// have no numbers yet.
    pub fn read_events(&mut self) -> Result<Vec<Space>> {
        let mut children = Vec::new();
        let mut events = Vec::new();
        while uffd::read(self.uffd.as_fd(), &mut events).context(|| "read a userfaultfd")? {
            for event in events.drain(..) {
                match event {
                    Event::Fault(address) => self.faults.push_back(address / PAGE),
                    Event::Fork(uffd) => children.push(self.child(uffd)),
                    Event::Remap { from, to, length } => {
                        let count = length.div_ceil(PAGE);
                        self.missing.relocate(from / PAGE, to / PAGE, count);
                    }
                    Event::Remove { start, end } => {
                        let count = end.saturating_sub(start).div_ceil(PAGE);
                        self.missing.remove(start / PAGE, count);
                    }
                }
            }
        }
        Ok(children)
    }

    fn child(&self, uffd: OwnedFd) -> Space {
        let missing = self.missing.clone();
        Space {
            restored: self.restored,
            ..Space::new(0, uffd, missing, self.addresses.clone())
        }
    }

    /// Fills the page that a thread waits for longest, and tells which it was in the world if
    /// it is one of the world's. `None` when nobody waits.
    pub fn serve_fault(
        &mut self,
        source: &Source,
        decoder: &mut Decoder,
    ) -> Result<Option<(Step, Option<u64>)>> {
        let Some(page) = self.faults.front().copied() else {
            return Ok(None);
        };
        let origin = self.missing.find(page).map(|run| run.origin);
        let step = match origin {
            Some(_) => {
                let window = self.streams.window(page);
                if window > FRAME && self.restored {
                    self.fill_behind(page, window.min(BATCH), source, decoder)?;
                }
                let step = self.fill(page, window, source, decoder)?;
                if let Step::Done(count) = step
                    && count < window
                    && self.restored
                {
                    self.look_ahead(page + count, window - count);
                }
                step
            }
            None => self.fill(page, ZEROS, source, decoder)?,
        };
        if step != Step::Busy {
            self.faults.pop_front();
        }
        Ok(Some((step, origin)))
    }

    /// Fills what a walk wants next before the page that it waits for: it would be back at once.
    fn fill_behind(
        &mut self,
        page: u64,
        count: u64,
        source: &Source,
        decoder: &mut Decoder,
    ) -> Result<()> {
        let (mut at, end) = (page + FRAME, page + count);
        while let Some(run) = self.missing.next(at).filter(|run| run.page < end) {
            match self.fill(run.page, end - run.page, source, decoder)? {
                Step::Done(count) => at = run.page + count,
                Step::Busy | Step::Gone => break,
            }
        }
        Ok(())
    }

    /// Has a run filled as soon as nobody waits, before what was asked for earlier.
    fn look_ahead(&mut self, page: u64, count: u64) {
        self.ahead.push_front((page, count));
        self.ahead.truncate(MOST_AHEAD);
    }

    /// Has runs of the world filled, in this order, when nobody waits.
    pub fn expect(&mut self, runs: impl IntoIterator<Item = (u64, u64)>) {
        self.expected.extend(runs);
    }

    /// Has all that it lacks filled when nobody waits.
    pub fn expect_all(&mut self) {
        self.expected.push_back((0, u64::MAX));
    }

    /// Whether there is something to fill ahead.
    pub fn has_work(&self) -> bool {
        self.restored && !(self.ahead.is_empty() && self.expected.is_empty())
    }

    /// Fills a little of what is to be filled ahead. `None` when there is nothing.
    pub fn work(&mut self, source: &Source, decoder: &mut Decoder) -> Result<Option<Step>> {
        while let Some((queue, (page, count))) = self.next_run() {
            let end = page.saturating_add(count);
            let Some(run) = self.missing.next(page).filter(|run| run.page < end) else {
                continue;
            };
            let step = self.fill(run.page, end - run.page, source, decoder)?;
            let done = match step {
                Step::Done(done) => done,
                Step::Busy | Step::Gone => 0,
            };
            let next = run.page + done;
            if next < end && step != Step::Gone {
                let queue = match queue {
                    Queue::Ahead => &mut self.ahead,
                    Queue::Expected => &mut self.expected,
                };
                queue.push_front((next, end - next));
            }
            return Ok(Some(step));
        }
        Ok(None)
    }

    fn next_run(&mut self) -> Option<(Queue, (u64, u64))> {
        let ahead = self.ahead.pop_front().map(|run| (Queue::Ahead, run));
        ahead.or_else(|| Some((Queue::Expected, self.expected.pop_front()?)))
    }

    /// Fills some of the pages from `page` on, at most `most`.
    fn fill(
        &mut self,
        page: u64,
        most: u64,
        source: &Source,
        decoder: &mut Decoder,
    ) -> Result<Step> {
        let Some(run) = self.missing.find(page) else {
            let next = self.missing.next(page).map_or(u64::MAX, |run| run.page);
            return Ok(self.fill_zeros(page, most.min(next - page)));
        };
        let most = most.min(run.count);
        match self.addresses.find(run.origin) {
            Some((Place::Pack { pack, page: at }, more)) => {
                let uffd = self.uffd.as_fd();
                let filled = source.with_pages((pack, at), most.min(more), decoder, |pages| {
                    fill_some(pages.len() as u64 / PAGE, |count| {
                        uffd::copy(uffd, page * PAGE, &pages[..(count * PAGE) as usize])
                    })
                })?;
                let step = self.conclude(page, filled);
                if let Step::Done(count) = step {
                    self.filled += count;
                }
                Ok(step)
            }
            Some((Place::Zero, more)) => Ok(self.fill_zeros(page, most.min(more))),
            None => Ok(self.fill_zeros(page, most.min(self.addresses.gap(run.origin)))),
        }
    }

    fn fill_zeros(&mut self, page: u64, most: u64) -> Step {
        let uffd = self.uffd.as_fd();
        let filled = fill_some(most.min(MOST_ZEROS), |count| {
            uffd::zero(uffd, page * PAGE, count * PAGE)
        });
        self.conclude(page, filled)
    }

    /// Takes note of what a filling at `page` came to.
    fn conclude(&mut self, page: u64, filled: Filled) -> Step {
        let count = match (filled.bytes / PAGE, filled.stopped) {
            (0, Some(Errno::AGAIN | Errno::NOMEM)) => return Step::Busy,
            (0, Some(Errno::SRCH | Errno::NOSPC)) => return Step::Gone,
            // It is there already, or its mapping is gone for good: whoever waits looks again.
            (0, stopped) => {
                let _ = uffd::wake(self.uffd.as_fd(), page * PAGE, PAGE);
                if stopped != Some(Errno::EXIST) && !self.restored {
                    return Step::Done(1);
                }
                1
            }
            (count, _) => count,
        };
        self.missing.remove(page, count);
        Step::Done(count)
    }
}

/// Has `fill` fill so many pages, or fewer where a mapping ends before that.
///
/// The kernel looks for the mapping before it looks again whether memory is just being changed
/// (mm/userfaultfd.c). So a mapping that is not there may have been moved a moment ago, of
/// which no event was read yet. Such a change lasts until its event is read: if it is one, a
/// second attempt is refused. Only what fails twice is not there.
fn fill_some(mut count: u64, fill: impl Fn(u64) -> Filled) -> Filled {
    let mut failed = false;
    loop {
        let filled = fill(count);
        match filled.stopped {
            Some(Errno::NOENT | Errno::INVAL) if count > 1 && filled.bytes == 0 => count /= 2,
            Some(Errno::NOENT | Errno::INVAL) if !failed && filled.bytes == 0 => failed = true,
            _ => return filled,
        }
    }
}

impl AsFd for Space {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.uffd.as_fd()
    }
}
