//! The page server of a world.
//!
//! One thread waits for everything: lines, userfaultfds, time. In every round it
//! reads what has happened, fills what threads wait for, and only when nobody
//! waits a little of what is likely to be wanted next. A second thread decodes
//! that ahead of it.
//!
//! It never closes the userfaultfd of a space that a task lives in, unless the
//! sibling lacks nothing more: closing it would turn what is missing into zeros.
//! A sibling whose memory cannot be had is told so on its line, and hangs until
//! its guardian has killed it.

mod lines;
mod serving;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::Timespec;

use super::message::{self, Message, State};
use super::missing::Missing;
use super::sibling::Sibling;
use super::source::Source;
use super::space::Space;
use super::working_set::WorkingSet;
use crate::criu::pagemap;
use crate::error::IoContext;
use crate::memory::addresses::Addresses;
use crate::memory::frame::Decoder;
use crate::memory::index::Index;
use crate::store::Store;
use crate::{Error, ErrorKind, Result};

/// How long it is recorded what a sibling wants.
const RECORDED: Duration = Duration::from_millis(1500);
/// How often tasks are looked for that have ended.
const PROBE: Duration = Duration::from_millis(300);
/// New spaces after which they are looked for at once.
const MANY_NEW: u64 = 256;
/// Rounds without progress before a pause.
const PATIENCE: u32 = 64;

/// What a server serves.
pub struct World<'a> {
    /// Where its pages are.
    pub index: &'a Index,
    /// The store that has the packs. The caller holds them by a lease.
    pub store: &'a Store,
    /// Per process id in the images: the pages that CRIU leaves to us, runs of page numbers and
    /// counts, rising.
    pub lazy: &'a BTreeMap<u32, Vec<(u64, u64)>>,
    /// Where it is remembered what siblings want first.
    pub working_set: Option<PathBuf>,
}

/// What is behind a key that epoll gives.
enum Behind {
    /// A line, or a question, whose first message has not come.
    Stranger(OwnedFd),
    /// The line of a sibling.
    Line(u64),
    /// A space of a sibling.
    Space(u64, Space),
}

const LISTENER: u64 = 0;

/// A page server.
pub struct Server<'a> {
    epoll: OwnedFd,
    listener: OwnedFd,
    source: Source<'a>,
    processes: HashMap<u32, (Missing, Arc<Addresses>)>,
    behind: HashMap<u64, Behind>,
    siblings: BTreeMap<u64, Sibling>,
    next_key: u64,
    decoder: Decoder,
    /// Spaces in which threads wait, and those with something to fill ahead.
    waiting: VecDeque<u64>,
    working: VecDeque<u64>,
    probed: Instant,
    new_spaces: u64,
    idle_since: Option<Instant>,
    busy_rounds: u32,
    state: State,
    working_set: WorkingSet,
    working_set_path: Option<PathBuf>,
    /// Pages of it that are on the disk.
    saved: u64,
}

impl<'a> Server<'a> {
    /// One that listens at `path`, where nothing must be yet.
    pub fn new(world: &World<'a>, path: &Path) -> Result<Server<'a>> {
        let listener = message::listener(path)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context(|| "make an epoll")?;
        watch(&epoll, listener.as_fd(), LISTENER)?;
        let mut processes = HashMap::new();
        for (pid, runs) in world.lazy {
            let space = pagemap::Space::Process((*pid).into());
            let addresses = Addresses::of(world.index, space).ok_or_else(|| {
                let text = format!("the pages index does not know process {pid}");
                Error::new(ErrorKind::CorruptWorld, text)
            })?;
            let missing = Missing::of(runs.iter().copied());
            processes.insert(*pid, (missing, Arc::new(addresses)));
        }
        let working_set = match &world.working_set {
            Some(path) => WorkingSet::load(path),
            None => WorkingSet::default(),
        };
        Ok(Server {
            epoll,
            listener,
            source: Source::new(world.index, world.store),
            processes,
            behind: HashMap::new(),
            siblings: BTreeMap::new(),
            next_key: LISTENER + 1,
            decoder: Decoder::new()?,
            waiting: VecDeque::new(),
            working: VecDeque::new(),
            probed: Instant::now(),
            new_spaces: 0,
            idle_since: Some(Instant::now()),
            busy_rounds: 0,
            state: State::default(),
            saved: working_set.pages(),
            working_set,
            working_set_path: world.working_set.clone(),
        })
    }

    /// Serves until nobody has depended on it for as long as `linger`.
    pub fn run(&mut self, linger: Duration) -> Result<()> {
        let mut ready = Vec::with_capacity(256);
        while self.idle_since.is_none_or(|since| since.elapsed() < linger) {
            ready.clear();
            let pause = self.pause();
            let buffer = rustix::buffer::spare_capacity(&mut ready);
            match epoll::wait(&self.epoll, buffer, Some(&pause)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context(|| "wait for page faults"),
            }
            for event in &ready {
                self.wake(event.data.u64())?;
            }
            self.serve_all();
            self.work_a_little();
            if self.probed.elapsed() >= PROBE || self.new_spaces >= MANY_NEW {
                self.look_around();
            }
        }
        Ok(())
    }

    /// How long nothing may happen.
    fn pause(&self) -> Timespec {
        let pause = if self.waiting.is_empty() && self.working.is_empty() {
            PROBE
        } else if self.busy_rounds < PATIENCE {
            Duration::ZERO
        } else {
            Duration::from_millis(1)
        };
        Timespec {
            tv_sec: 0,
            tv_nsec: pause.subsec_nanos().into(),
        }
    }

    fn wake(&mut self, key: u64) -> Result<()> {
        match self.behind.get(&key) {
            None if key == LISTENER => self.accept(),
            None => Ok(()),
            Some(Behind::Stranger(_)) => self.hear_stranger(key),
            Some(Behind::Line(sibling)) => {
                let sibling = *sibling;
                self.hear(key, sibling)
            }
            Some(Behind::Space(..)) => {
                self.read_events(key);
                self.waiting.push_back(key);
                Ok(())
            }
        }
    }

    fn add(&mut self, behind: Behind) -> Result<u64> {
        let key = self.next_key;
        self.next_key += 1;
        match &behind {
            Behind::Stranger(fd) => watch(&self.epoll, fd.as_fd(), key)?,
            Behind::Space(_, space) => watch(&self.epoll, space.as_fd(), key)?,
            Behind::Line(_) => {}
        }
        self.behind.insert(key, behind);
        Ok(key)
    }

    fn add_space(&mut self, sibling: u64, space: Space) -> Result<u64> {
        let key = self.add(Behind::Space(sibling, space))?;
        if let Some(sibling) = self.siblings.get_mut(&sibling) {
            sibling.spaces.insert(key);
        }
        self.new_spaces += 1;
        Ok(key)
    }

    /// Looks for tasks that have ended, and says what lines did not take.
    fn look_around(&mut self) {
        self.probed = Instant::now();
        self.new_spaces = 0;
        let dead: Vec<u64> = self
            .behind
            .iter()
            .filter(|(_, behind)| matches!(behind, Behind::Space(_, space) if !space.is_alive()))
            .map(|(key, _)| *key)
            .collect();
        for key in dead {
            self.end_space(key);
        }
        let siblings: Vec<u64> = self.siblings.keys().copied().collect();
        for key in siblings {
            if let Some(sibling) = self.siblings.get_mut(&key)
                && let Err(error) = sibling.flush()
            {
                self.fail(key, &error);
            }
            self.forget_if_over(key);
        }
        self.remember();
        if self.siblings.is_empty() && self.idle_since.is_none() {
            self.idle_since = Some(Instant::now());
        }
    }

    /// Writes down what siblings wanted, when nobody has just begun.
    fn remember(&mut self) {
        for sibling in self.siblings.values_mut() {
            let over = |since: &mut Instant| since.elapsed() >= RECORDED;
            sibling.recorded_since.take_if(over);
        }
        let pages = self.working_set.pages();
        let records = |it: &Sibling| it.recorded_since.is_some();
        if pages == self.saved || self.siblings.values().any(records) {
            return;
        }
        self.saved = pages;
        if let Some(path) = &self.working_set_path
            && let Err(error) = self.working_set.save(path)
        {
            tracing::warn!("{}: {error}", path.display());
        }
    }

    /// No task lives in it any more.
    fn end_space(&mut self, key: u64) {
        let Some((sibling, number)) = self.drop_space(key) else {
            return;
        };
        if let Some(it) = self.siblings.get_mut(&sibling)
            && let Err(error) = it.say(Message::Gone { number }, None)
        {
            self.fail(sibling, &error);
        }
        self.check_independence(sibling);
        self.forget_if_over(sibling);
    }

    fn drop_space(&mut self, key: u64) -> Option<(u64, u64)> {
        match self.behind.remove(&key)? {
            Behind::Space(sibling, space) => {
                // A duplicate would keep it watched.
                let _ = epoll::delete(&self.epoll, space.as_fd());
                self.state.filled_pages += space.filled;
                if let Some(it) = self.siblings.get_mut(&sibling) {
                    it.spaces.remove(&key);
                }
                Some((sibling, space.number))
            }
            other => {
                self.behind.insert(key, other);
                None
            }
        }
    }

    /// Says that a sibling lacks nothing more, if so.
    fn check_independence(&mut self, sibling: u64) {
        let Some(it) = self.siblings.get_mut(&sibling) else {
            return;
        };
        let lacks = |key| match self.behind.get(key) {
            Some(Behind::Space(_, space)) => space.missing() > 0,
            _ => false,
        };
        if it.complete && !it.independent && !it.failed && !it.spaces.iter().any(lacks) {
            it.independent = true;
            tracing::info!("{} depends on nothing any more", it.name);
            if let Err(error) = it.say(Message::Independent, None) {
                self.fail(sibling, &error);
            }
        }
    }

    fn fail(&mut self, sibling: u64, error: &Error) {
        let Some(it) = self.siblings.get_mut(&sibling) else {
            return;
        };
        it.fail(error);
        for key in &it.spaces {
            if let Some(Behind::Space(_, space)) = self.behind.get(key) {
                // Kept, but no longer listened to.
                let _ = epoll::delete(&self.epoll, space.as_fd());
            }
        }
    }

    fn forget_if_over(&mut self, sibling: u64) {
        let over = |it: &Sibling| it.line().is_none() && it.spaces.is_empty();
        if self.siblings.get(&sibling).is_some_and(over) {
            self.siblings.remove(&sibling);
        }
    }
}

fn watch(epoll: &OwnedFd, fd: BorrowedFd<'_>, key: u64) -> Result<()> {
    epoll::add(epoll, fd, EventData::new_u64(key), EventFlags::IN).context(|| "watch a descriptor")
}
