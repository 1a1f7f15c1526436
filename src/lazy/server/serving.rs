//! Reading what has happened in address spaces, and filling them.

use std::collections::VecDeque;
use std::os::fd::AsFd;

use super::super::message::Message;
use super::super::space::{Space, Step};
use super::{Behind, Server};
use crate::Result;
use crate::memory::frame::FRAME_PAGES;

impl Server<'_> {
    pub(super) fn read_events(&mut self, key: u64) {
        let Some(Behind::Space(sibling, space)) = self.behind.get_mut(&key) else {
            return;
        };
        let sibling = *sibling;
        match space.read_events() {
            Ok(children) => {
                for child in children {
                    if let Err(error) = self.add_child(sibling, child) {
                        self.fail(sibling, &error);
                    }
                }
            }
            Err(error) => self.fail(sibling, &error),
        }
    }

    /// Says what a fork made: before anything else, for the guardian is to keep it as well.
    fn add_child(&mut self, sibling: u64, mut child: Space) -> Result<()> {
        if let Some(it) = self.siblings.get_mut(&sibling) {
            child.number = it.next_child();
            let number = child.number;
            if !it.independent {
                it.say(Message::Child { number }, Some(child.as_fd()))?;
            }
            if it.detaching {
                child.expect_all();
            }
        }
        let works = child.has_work();
        let key = self.add_space(sibling, child)?;
        if works {
            self.working.push_back(key);
        }
        Ok(())
    }

    /// Fills what threads wait for.
    pub(super) fn serve_all(&mut self) {
        let mut stuck = VecDeque::new();
        let mut progress = false;
        while let Some(key) = self.waiting.pop_front() {
            while let Some(step) = self.serve(key) {
                if step == Step::Busy {
                    self.read_events(key);
                    stuck.push_back(key);
                    break;
                }
                progress = true;
            }
        }
        self.waiting = stuck;
        let nothing_to_do = self.waiting.is_empty() && self.working.is_empty();
        self.busy_rounds = match progress || nothing_to_do {
            true => 0,
            false => self.busy_rounds.saturating_add(1),
        };
    }

    /// Fills what one thread waits for. `None` where none waits any more.
    fn serve(&mut self, key: u64) -> Option<Step> {
        let Some(Behind::Space(sibling, space)) = self.behind.get_mut(&key) else {
            return None;
        };
        let sibling = *sibling;
        if self.siblings.get(&sibling).is_some_and(|it| it.failed) {
            return None;
        }
        let served = space.serve_fault(&self.source, &mut self.decoder);
        let (works, lacks) = (space.has_work(), space.missing() > 0);
        let number = space.number;
        match served {
            Ok(None) => None,
            Ok(Some((step, origin))) => {
                if let (Step::Done(count), Some(page)) = (step, origin) {
                    self.record(sibling, number, page, count);
                }
                match step {
                    Step::Busy => {}
                    Step::Gone => self.end_space(key),
                    Step::Done(_) => {
                        self.state.faults += 1;
                        if works && !self.working.contains(&key) {
                            self.working.push_back(key);
                        }
                        if !lacks {
                            self.check_independence(sibling);
                        }
                    }
                }
                Some(step)
            }
            Err(error) => {
                self.fail(sibling, &error);
                None
            }
        }
    }

    fn record(&mut self, sibling: u64, number: u64, page: u64, count: u64) {
        let Some(sibling) = self.siblings.get_mut(&sibling) else {
            return;
        };
        // What children of restored processes want is not known by a process id.
        if sibling.recorded_since.is_some()
            && let Ok(pid) = u32::try_from(number)
            && !self
                .working_set
                .add(pid, page, count.min(FRAME_PAGES as u64))
        {
            sibling.recorded_since = None;
        }
    }

    /// Fills a little of what nobody waits for yet, of one space after the other.
    pub(super) fn work_a_little(&mut self) {
        if !self.waiting.is_empty() {
            return;
        }
        let Some(key) = self.working.pop_front() else {
            return;
        };
        let Some(Behind::Space(sibling, space)) = self.behind.get_mut(&key) else {
            return;
        };
        let sibling = *sibling;
        match space.work(&self.source, &mut self.decoder) {
            Ok(None) => self.check_independence(sibling),
            Ok(Some(Step::Gone)) => self.end_space(key),
            Ok(Some(step)) => {
                if step != Step::Busy {
                    self.busy_rounds = 0;
                }
                if space.has_work() {
                    self.working.push_back(key);
                } else {
                    self.check_independence(sibling);
                }
            }
            Err(error) => self.fail(sibling, &error),
        }
    }
}
