//! What an address space still lacks: from where it is now to where it was in the world.
//!
//! Pages are by number: address divided by 4096. A page is in here from the
//! restore until it is filled or its content is given up (`munmap`,
//! `MADV_DONTNEED`); `mremap` moves it. What is not in here and missing is zero.

use std::collections::BTreeMap;

/// A run of lacking pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first one, where it is now.
    pub page: u64,
    /// Where it was in the world.
    pub origin: u64,
    /// How many there are; at least one.
    pub count: u64,
}

impl Run {
    fn end(&self) -> u64 {
        self.page + self.count
    }

    /// The part of it within `from..to`.
    fn within(&self, from: u64, to: u64) -> Option<Run> {
        let page = self.page.max(from);
        let count = self.end().min(to).checked_sub(page).filter(|n| *n > 0)?;
        Some(Run {
            page,
            origin: self.origin + (page - self.page),
            count,
        })
    }
}

/// The lacking pages of an address space.
#[derive(Debug, Clone, Default)]
pub struct Missing {
    /// By first page: origin and count. No two overlap.
    runs: BTreeMap<u64, (u64, u64)>,
    pages: u64,
}

impl Missing {
    /// These runs of the world, each where it was. They must not overlap.
    pub fn of(runs: impl IntoIterator<Item = (u64, u64)>) -> Missing {
        let mut missing = Missing::default();
        for (page, count) in runs {
            missing.put(Run {
                page,
                origin: page,
                count,
            });
        }
        missing
    }

    /// How many there are.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// The run that begins at this page, if it lacks.
    pub fn find(&self, page: u64) -> Option<Run> {
        let (start, (origin, count)) = self.runs.range(..=page).next_back()?;
        let run = Run {
            page: *start,
            origin: *origin,
            count: *count,
        };
        run.within(page, u64::MAX)
    }

    /// The first run at this page or after it.
    pub fn next(&self, page: u64) -> Option<Run> {
        self.find(page).or_else(|| {
            let (page, (origin, count)) = self.runs.range(page..).next()?;
            Some(Run {
                page: *page,
                origin: *origin,
                count: *count,
            })
        })
    }

    /// Takes out what is in `page..page + count`: it is filled, or nobody's any more.
    pub fn remove(&mut self, page: u64, count: u64) {
        self.take(page, page.saturating_add(count));
    }

    /// What lies in `from..from + count` is now at `to`, and what was there is gone.
    pub fn relocate(&mut self, from: u64, to: u64, count: u64) {
        let moved = self.take(from, from.saturating_add(count));
        self.remove(to, count);
        for run in moved {
            self.put(Run {
                page: to + (run.page - from),
                ..run
            });
        }
    }

    /// All runs, by rising page.
    #[cfg(test)]
    pub fn runs(&self) -> impl Iterator<Item = Run> {
        self.runs.iter().map(|(page, (origin, count))| Run {
            page: *page,
            origin: *origin,
            count: *count,
        })
    }

    fn put(&mut self, run: Run) {
        self.runs.insert(run.page, (run.origin, run.count));
        self.pages += run.count;
    }

    fn take(&mut self, from: u64, to: u64) -> Vec<Run> {
        let mut taken = Vec::new();
        let before = self.runs.range(..from).next_back();
        let first = before.map_or(from, |(page, _)| *page);
        let touched: Vec<_> = self
            .runs
            .range(first..to.max(first))
            .map(|(page, (origin, count))| Run {
                page: *page,
                origin: *origin,
                count: *count,
            })
            .filter(|run| run.end() > from)
            .collect();
        for run in touched {
            self.runs.remove(&run.page);
            self.pages -= run.count;
            let rests = [run.within(0, from), run.within(to, u64::MAX)];
            for rest in rests.into_iter().flatten() {
                self.put(rest);
            }
            taken.extend(run.within(from, to));
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same as a table of single pages.
    #[derive(Default)]
    struct Table(BTreeMap<u64, u64>);

    impl Table {
        fn remove(&mut self, page: u64, count: u64) {
            self.0.retain(|at, _| !(page..page + count).contains(at));
        }

        fn relocate(&mut self, from: u64, to: u64, count: u64) {
            let inside = |at: &u64| (from..from + count).contains(at);
            let moved: Vec<_> = self.0.iter().filter(|(at, _)| inside(at)).collect();
            let moved: Vec<_> = moved
                .into_iter()
                .map(|(at, o)| (at - from + to, *o))
                .collect();
            self.remove(from, count);
            self.remove(to, count);
            self.0.extend(moved);
        }
    }

    proptest! {
        #[test]
        fn it_is_what_a_table_of_pages_is(
            starts in prop::collection::vec((0u64..20, 1u64..20), 0..8),
            steps in prop::collection::vec((any::<bool>(), 0u64..120, 0u64..120, 1u64..40), 0..20),
        ) {
            let (mut at, mut runs) = (0, Vec::new());
            for (gap, count) in starts {
                runs.push((at + gap, count));
                at += gap + count;
            }
            let mut missing = Missing::of(runs.iter().copied());
            let mut table = Table::default();
            for (page, count) in runs {
                table.0.extend((page..page + count).map(|page| (page, page)));
            }
            for (removes, from, to, count) in steps {
                match removes || from.abs_diff(to) < count {
                    true => { missing.remove(from, count); table.remove(from, count); }
                    false => { missing.relocate(from, to, count); table.relocate(from, to, count); }
                }
                let got: BTreeMap<_, _> = missing
                    .runs()
                    .flat_map(|run| (0..run.count).map(move |n| (run.page + n, run.origin + n)))
                    .collect();
                prop_assert_eq!(&got, &table.0);
                prop_assert_eq!(missing.pages(), table.0.len() as u64);
                for page in 0..180 {
                    let run = missing.find(page);
                    prop_assert_eq!(run.map(|run| run.origin), table.0.get(&page).copied());
                    let next = table.0.range(page..).next();
                    prop_assert_eq!(missing.next(page).map(|run| run.page), next.map(|n| *n.0));
                }
            }
        }
    }
}
