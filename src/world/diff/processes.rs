//! Processes by their ids.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::listing::{Change, Listing};
use super::open_files::{self, OpenFileChange};
use crate::criu::dumped::{Process, State};
use crate::world::raw_text::RawText;

/// What differs in the processes.
#[derive(Debug, Serialize)]
pub struct ProcessesDiff {
    /// By id.
    #[serde(flatten)]
    pub list: Listing<ProcessChange>,
    /// By process and descriptor.
    pub open_files: Listing<OpenFileChange>,
}

impl ProcessesDiff {
    /// Whether anything differs.
    pub fn differs(&self) -> bool {
        self.list.differs() || self.open_files.differs()
    }
}

/// A process that differs.
#[derive(Debug, Serialize)]
pub struct ProcessChange {
    /// Its id in the container.
    pub pid: u32,
    /// What happened to it.
    pub change: Change,
    /// The fields of the views that differ.
    pub what: Vec<&'static str>,
    /// In the first world.
    pub before: Option<ProcessView>,
    /// In the second.
    pub after: Option<ProcessView>,
}

/// A process.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct ProcessView {
    /// Its parent's id, 0 for the first process.
    pub parent: u32,
    /// Its process group's.
    pub group: u32,
    /// Its session's.
    pub session: u32,
    /// How many threads it has.
    pub threads: u32,
    /// What it is called: at most 15 bytes.
    pub command: RawText,
    /// `alive`, `stopped`, `zombie` or `unknown`.
    pub state: &'static str,
    /// Effective user id.
    pub uid: Option<u32>,
    /// Effective group id.
    pub gid: Option<u32>,
    /// The program's path.
    pub executable: Option<RawText>,
    /// Its working directory.
    pub cwd: Option<RawText>,
    /// Its root directory.
    pub root: Option<RawText>,
}

impl ProcessView {
    fn of(process: &Process) -> ProcessView {
        let text = |name: &Option<std::sync::Arc<[u8]>>| name.as_deref().map(RawText::from);
        ProcessView {
            parent: process.parent,
            group: process.group,
            session: process.session,
            threads: process.threads,
            command: RawText::from(&process.command),
            state: match process.state {
                State::Alive => "alive",
                State::Stopped => "stopped",
                State::Zombie => "zombie",
                State::Other(_) => "unknown",
            },
            uid: process.uid,
            gid: process.gid,
            executable: text(&process.executable),
            cwd: text(&process.cwd),
            root: text(&process.root),
        }
    }

    fn differing(&self, other: &ProcessView) -> Vec<&'static str> {
        let all = [
            ("parent", self.parent != other.parent),
            ("group", self.group != other.group),
            ("session", self.session != other.session),
            ("threads", self.threads != other.threads),
            ("command", self.command != other.command),
            ("state", self.state != other.state),
            ("uid", self.uid != other.uid),
            ("gid", self.gid != other.gid),
            ("executable", self.executable != other.executable),
            ("cwd", self.cwd != other.cwd),
            ("root", self.root != other.root),
        ];
        let differing = all.into_iter().filter(|(_, differs)| *differs);
        differing.map(|(name, _)| name).collect()
    }

    fn texts(&self) -> usize {
        let texts = [&self.executable, &self.cwd, &self.root];
        let names = texts.into_iter().flatten().map(|text| text.0.len());
        self.command.0.len() + names.sum::<usize>()
    }
}

/// Processes of both worlds by their ids.
pub(super) type Pairs<'a> = BTreeMap<u32, (Option<&'a Process>, Option<&'a Process>)>;

pub(super) fn pairs<'a>(before: &'a [Process], after: &'a [Process]) -> Pairs<'a> {
    let mut pairs = Pairs::new();
    for process in before {
        pairs.entry(process.pid).or_default().0 = Some(process);
    }
    for process in after {
        pairs.entry(process.pid).or_default().1 = Some(process);
    }
    pairs
}

pub(super) fn compare(before: &[Process], after: &[Process]) -> ProcessesDiff {
    let pairs = pairs(before, after);
    let mut list = Listing::default();
    for (pid, (old, new)) in &pairs {
        let (old, new) = (old.map(ProcessView::of), new.map(ProcessView::of));
        if old == new {
            continue;
        }
        let what = match (&old, &new) {
            (Some(old), Some(new)) => old.differing(new),
            _ => Vec::new(),
        };
        let change = Change::of(old.as_ref(), new.as_ref());
        let views = [&old, &new].into_iter().flatten();
        let texts = views.map(ProcessView::texts).sum();
        let item = ProcessChange {
            pid: *pid,
            change,
            what,
            before: old,
            after: new,
        };
        list.push(change, item, texts);
    }
    ProcessesDiff {
        list,
        open_files: open_files::compare(before, after, &pairs),
    }
}

/// The numbers that any of two has, rising.
pub(super) fn union(
    one: impl Iterator<Item = u32>,
    two: impl Iterator<Item = u32>,
) -> BTreeSet<u32> {
    one.chain(two).collect()
}
