//! What a delta layer has to hold: the world's `rootfs.tar` compared with the
//! layers of its parent, side by side in one pass.

use super::delta::{Stop, WhyFull};
use super::merged::Merged;
use super::node::{Node, Nodes};
use crate::Result;
use crate::world::rootfs::entry::{Entry, EntryPath, Kind};
use crate::world::rootfs::reader::Reader;
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::io::{BufReader, Read};

/// Which nodes of `rootfs.tar`, by their number, a delta layer holds, and what
/// it removes.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub nodes: BTreeSet<u64>,
    /// Those whose opaque mark it holds, too.
    pub opaque: BTreeSet<u64>,
    /// In order.
    pub removed: Vec<EntryPath>,
    /// About how many bytes this will be.
    pub size: u64,
}

impl Plan {
    /// Whether the parent's layers will do as they are.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.removed.is_empty()
    }
}

/// Compares the world's `tar` with its parent's layers. Gives up when the
/// delta would be longer than `limit` bytes.
pub(super) fn compare<R: Read>(
    tar: &File,
    parent: &mut Merged<R>,
    limit: u64,
) -> Result<Plan, Stop> {
    let mut planner = Planner {
        parent,
        world: Nodes::new(Reader::new(tar)?),
        limit,
        plan: Plan::default(),
        dirs: Vec::new(),
        cover: None,
        opaque_before: None,
        opaque: None,
        fresh: HashSet::new(),
        touched: HashSet::new(),
        buffers: (vec![0; STEP], vec![0; STEP]),
    };
    planner.run()?;
    let Planner { plan, touched, .. } = planner;
    match touched.is_empty() {
        true => Ok(plan),
        false => whole_groups(tar, plan, &touched),
    }
}

const STEP: usize = 64 << 10;

struct Planner<'p, R: Read> {
    parent: &'p mut Merged<R>,
    world: Nodes<BufReader<&'p File>>,
    limit: u64,
    plan: Plan,
    /// The world's directories around what is looked at, and their numbers.
    dirs: Vec<(EntryPath, u64)>,
    /// The outermost path inside which nothing of the parent is left.
    cover: Option<(EntryPath, Cover)>,
    /// The outermost opaque directory around what is looked at: the parent's
    /// and the world's. In there the image does not show through.
    opaque_before: Option<EntryPath>,
    opaque: Option<EntryPath>,
    /// Files in the plan that may have further names.
    fresh: HashSet<EntryPath>,
    /// First names of files that the plan has to hold with all their names.
    touched: HashSet<EntryPath>,
    buffers: (Vec<u8>, Vec<u8>),
}

/// Why nothing of the parent is left inside a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cover {
    /// The world has something else there, or deletes it.
    Hidden,
    /// The world has an opaque directory there that the parent has not.
    Replaced,
    /// The world has nothing there.
    Removed,
}

impl<R: Read> Planner<'_, R> {
    fn run(&mut self) -> Result<(), Stop> {
        let mut number = 0;
        let mut before = self.next_before()?;
        let mut now = self.world.next()?;
        loop {
            let order = match (&before, &now) {
                (Some(before), Some(now)) => before.entry.path.order(&now.entry.path),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return Ok(()),
            };
            if let (Some(before), Ordering::Less) = (&before, order) {
                self.gone(before)?;
            } else if let Some(now) = &now {
                let before = before.as_ref().filter(|_| order.is_eq());
                self.there(before, now, number)?;
                number += 1;
            }
            if self.plan.size > self.limit {
                return Err(Stop::Full(WhyFull::TooMuchChanged));
            }
            if order.is_le() {
                before = self.next_before()?;
            }
            if order.is_ge() {
                now = self.world.next()?;
            }
        }
    }

    fn next_before(&mut self) -> Result<Option<Node>, Stop> {
        self.parent.next().map_err(Stop::parent)
    }

    /// What only the parent has.
    fn gone(&mut self, before: &Node) -> Result<(), Stop> {
        let path = &before.entry.path;
        self.pass_to(path);
        let image_hidden = self.opaque.is_some() || self.opaque_before.is_some();
        let cover = self.cover.as_ref().map(|(_, cover)| *cover);
        if matches!(cover, None | Some(Cover::Removed))
            && before.entry.kind == Kind::Whiteout
            && !image_hidden
        {
            // The image shows through again, which no layer can say.
            return Err(Stop::inexpressible(path));
        }
        if cover.is_none() {
            self.plan.removed.push(path.clone());
            self.plan.size += 3 * 512;
            mark_dirs(&mut self.plan, &self.dirs);
            self.cover = Some((path.clone(), Cover::Removed));
        }
        if before.opaque && self.opaque_before.is_none() {
            self.opaque_before = Some(path.clone());
        }
        Ok(())
    }

    /// What the world has, and perhaps the parent, too.
    fn there(&mut self, before: Option<&Node>, now: &Node, number: u64) -> Result<(), Stop> {
        let path = &now.entry.path;
        self.pass_to(path);
        let before = before.filter(|_| self.cover.is_none());
        let changed = match before {
            Some(before) => self.compare(before, now)?,
            None => true,
        };
        self.links(&now.entry, changed, number);
        if changed {
            mark(&mut self.plan, &now.entry, number, &self.dirs);
        }
        let opaque_before = before.is_some_and(|before| before.opaque);
        if now.opaque && !opaque_before {
            self.plan.opaque.insert(number);
            let cover = (path.clone(), Cover::Replaced);
            self.cover.get_or_insert(cover);
        }
        if before.is_some_and(Node::is_dir) && !now.is_dir() {
            self.cover = Some((path.clone(), Cover::Hidden));
        }
        if opaque_before && self.opaque_before.is_none() {
            self.opaque_before = Some(path.clone());
        }
        if now.opaque && self.opaque.is_none() {
            self.opaque = Some(path.clone());
        }
        if now.is_dir() {
            self.dirs.push((path.clone(), number));
        }
        Ok(())
    }

    /// Whether a name has to be said anew.
    fn compare(&mut self, before: &Node, now: &Node) -> Result<bool, Stop> {
        let path = &now.entry.path;
        match (before.is_dir(), now.is_dir()) {
            // A directory cannot be made transparent again.
            (true, true) if before.opaque && !now.opaque => Err(Stop::inexpressible(path)),
            // A deleted directory of the image comes back. (Where anything else
            // was instead, the image has nothing: overlayfs would have deleted
            // what it has, and made this directory opaque.)
            (false, true)
                if before.entry.kind == Kind::Whiteout && !now.opaque && self.opaque.is_none() =>
            {
                Err(Stop::inexpressible(path))
            }
            _ if before != now => Ok(true),
            _ => self.content_differs(&now.entry),
        }
    }

    fn content_differs(&mut self, entry: &Entry) -> Result<bool, Stop> {
        let mut left = entry.data();
        while left > 0 {
            let length = left.min(STEP as u64) as usize;
            let before = &mut self.buffers.0[..length];
            let now = &mut self.buffers.1[..length];
            self.parent.read_data(before).map_err(Stop::parent)?;
            self.world.read_data(now)?;
            if before != now {
                return Ok(true);
            }
            left -= length as u64;
        }
        Ok(false)
    }

    /// Notes which files have to be said with all their names.
    fn links(&mut self, now: &Entry, changed: bool, number: u64) {
        match &now.kind {
            Kind::Hardlink { target } if changed || self.fresh.contains(target) => {
                self.touched.insert(target.clone());
                mark(&mut self.plan, now, number, &self.dirs);
            }
            Kind::Hardlink { .. } | Kind::Directory | Kind::Whiteout => {}
            _ if changed => {
                self.fresh.insert(now.path.clone());
            }
            _ => {}
        }
    }

    /// Leaves all that `path` is not in.
    fn pass_to(&mut self, path: &EntryPath) {
        leave(&mut self.dirs, path);
        self.cover.take_if(|(outer, _)| !path.is_inside(outer));
        for opaque in [&mut self.opaque_before, &mut self.opaque] {
            opaque.take_if(|outer| !path.is_inside(outer));
        }
    }
}

/// Adds the names before the one that showed that the file changed.
fn whole_groups(tar: &File, mut plan: Plan, touched: &HashSet<EntryPath>) -> Result<Plan, Stop> {
    let mut nodes = Nodes::new(Reader::new(tar)?);
    let mut dirs = Vec::new();
    let mut number = 0;
    while let Some(Node { entry, .. }) = nodes.next()? {
        leave(&mut dirs, &entry.path);
        let first = match &entry.kind {
            Kind::Hardlink { target } => target,
            _ => &entry.path,
        };
        if touched.contains(first) {
            mark(&mut plan, &entry, number, &dirs);
        }
        if entry.kind == Kind::Directory {
            dirs.push((entry.path, number));
        }
        number += 1;
    }
    Ok(plan)
}

fn leave(dirs: &mut Vec<(EntryPath, u64)>, path: &EntryPath) {
    while dirs.pop_if(|(dir, _)| !path.is_inside(dir)).is_some() {}
}

/// Puts a node, and the directories around it, into the plan.
fn mark(plan: &mut Plan, entry: &Entry, number: u64, dirs: &[(EntryPath, u64)]) {
    if plan.nodes.insert(number) {
        plan.size += 2 * 512 + entry.data().next_multiple_of(512);
    }
    mark_dirs(plan, dirs);
}

fn mark_dirs(plan: &mut Plan, dirs: &[(EntryPath, u64)]) {
    for &(_, number) in dirs.iter().rev() {
        // Those around it are in the plan already.
        if !plan.nodes.insert(number) {
            break;
        }
        plan.size += 2 * 512;
    }
}
