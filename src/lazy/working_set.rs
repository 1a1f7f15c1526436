//! The pages that siblings of a world want first, remembered for the next ones.
//!
//! A file of text: `wsset1`, then a line per run of pages in the order of the
//! first faults, `PID PAGE COUNT` in decimal (the process id in the images, the
//! page's number), then the BLAKE3 hash of all that in hex. It only saves time:
//! one that is damaged, or of another version, is as none.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;

/// Most pages in one: 4 MiB, which is little beside a sibling that wants none of them.
const MOST: u64 = 1024;
/// Most bytes of its file.
const MOST_BYTES: u64 = 64 << 10;
const HEAD: &str = "wsset1";

/// Pages in the order in which they were wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkingSet {
    /// Process id, first page, count.
    runs: Vec<(u32, u64, u64)>,
    known: HashSet<(u32, u64)>,
}

impl WorkingSet {
    /// That of a file; empty where there is none that can be used.
    pub fn load(path: &Path) -> WorkingSet {
        use std::io::Read;
        let mut text = String::new();
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(MOST_BYTES + 1).read_to_string(&mut text));
        match read {
            Ok(_) => WorkingSet::parse(&text).unwrap_or_default(),
            Err(_) => WorkingSet::default(),
        }
    }

    fn parse(text: &str) -> Option<WorkingSet> {
        let (body, sum) = text.strip_suffix('\n')?.rsplit_once('\n')?;
        if blake3::hash(body.as_bytes()).to_hex().as_str() != sum {
            return None;
        }
        let mut lines = body.lines();
        if lines.next() != Some(HEAD) {
            return None;
        }
        let mut set = WorkingSet::default();
        for line in lines {
            let mut numbers = line.split(' ').map(str::parse::<u64>);
            let mut next = || numbers.next()?.ok();
            let (pid, page, count) = (next()?, next()?, next()?);
            set.add(u32::try_from(pid).ok()?, page, count);
        }
        Some(set)
    }

    fn text(&self) -> String {
        let mut body = HEAD.to_owned();
        for (pid, page, count) in &self.runs {
            let _ = write!(body, "\n{pid} {page} {count}");
        }
        let sum = blake3::hash(body.as_bytes()).to_hex();
        format!("{body}\n{sum}\n")
    }

    /// Writes it, for good or not at all.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        std::io::Write::write_all(&mut file, self.text().as_bytes())?;
        file.persist(path).map(drop).map_err(|error| error.error)
    }

    /// Adds pages that were wanted just now. `false` where it has all that it may have.
    pub fn add(&mut self, pid: u32, page: u64, count: u64) -> bool {
        for page in (page..).take(count.min(MOST) as usize) {
            if self.known.len() as u64 >= MOST {
                return false;
            }
            if !self.known.insert((pid, page)) {
                continue;
            }
            match self.runs.last_mut() {
                Some((last, first, count)) if *last == pid && *first + *count == page => {
                    *count += 1
                }
                _ => self.runs.push((pid, page, 1)),
            }
        }
        true
    }

    /// The pages of a process: runs of first page and count, the ones wanted first in front.
    pub fn of(&self, pid: u32) -> impl Iterator<Item = (u64, u64)> {
        let of_pid = self.runs.iter().filter(move |(other, ..)| *other == pid);
        of_pid.map(|(_, page, count)| (*page, *count))
    }

    /// How many pages it has.
    pub fn pages(&self) -> u64 {
        self.known.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_comes_back(runs in prop::collection::vec((0u32..9, 0u64..9000, 1u64..20), 0..300)) {
            let mut set = WorkingSet::default();
            for (pid, page, count) in runs {
                set.add(pid, page, count);
            }
            prop_assert!(set.pages() <= MOST);
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("set");
            prop_assert_eq!(WorkingSet::load(&path), WorkingSet::default());
            set.save(&path).unwrap();
            prop_assert!(std::fs::metadata(&path).unwrap().len() <= MOST_BYTES);
            prop_assert_eq!(&WorkingSet::load(&path), &set);
        }

        #[test]
        fn damage_makes_it_empty(at in 0usize..60, bit in 0u8..7) {
            let mut set = WorkingSet::default();
            set.add(1, 77, 3);
            let mut bytes = set.text().into_bytes();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let text = String::from_utf8_lossy(&bytes);
            prop_assert!(WorkingSet::parse(&text).is_none_or(|read| read == set));
        }
    }
}
