//! Looking for damage: every file of the store, every byte of every blob.
//!
//! Nothing is changed. What the index reaches is held by a lease meanwhile, so
//! that a sweep by another process is not taken for damage.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FileType, OFlags, Stat};
use serde::Serialize;

use super::damaged::DAMAGED;
use super::document::{Document, digest_of};
use super::finding::{Fault, Finding, Severity};
use super::folder;
use super::index::{INDEX_NAME, Index, name_of};
use super::layout::{
    BLOBS, LAYOUT_NAME, LEASES, NEIGHBOURS, PAGES, PRIVATE, RESCUED, SHA256, TMP, WORK,
    WORKING_SETS,
};
use super::layout::{Store, check_layout};
use super::lease::Lease;
use super::lock::{self, LOCK_NAME};
use super::partial::is_partial;
use super::reach::Reach;
use super::reference::WorldName;
use crate::Result;
use crate::digest::{Digest, Hashing, on_all_cores};
use crate::error::IoContext;

/// How much is read at once while hashing, in bytes.
const BLOCK: usize = 256 * 1024;

/// What was looked at, and what was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Worlds (and base images) in the index.
    pub worlds: u64,
    /// Blobs whose content was hashed.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Everything found, the worst first.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is damaged.
    pub fn is_clean(&self) -> bool {
        let mut all = self.findings.iter();
        all.all(|finding| finding.severity() == Severity::Note)
    }
}

/// One check in the making.
struct Check<'a> {
    store: &'a Store,
    report: Report,
    /// What is wrong with blobs, and which worlds suffer from it.
    faults: BTreeMap<(Digest, Fault), BTreeSet<Digest>>,
    /// Which worlds need a blob.
    users: BTreeMap<Digest, BTreeSet<Digest>>,
}

impl Store {
    /// Checks the store at `path`, which is damaged, maybe so badly that [`Store::open`] fails.
    /// `progress` is told how many bytes were hashed since its last call; by any thread.
    ///
    /// An error means that the check could not be made, not that there is damage.
    pub fn fsck(path: &Path, progress: &(dyn Fn(u64) + Sync)) -> Result<Report> {
        let store = Store::open_damaged(path)?;
        let check = Check {
            store: &store,
            report: Report::default(),
            faults: BTreeMap::new(),
            users: BTreeMap::new(),
        };
        check.run(progress).map_err(|error| store.blame(error))
    }
}

impl Check<'_> {
    fn run(mut self, progress: &(dyn Fn(u64) + Sync)) -> Result<Report> {
        self.layout()?;
        let lease = self.index()?;
        self.names()?;
        self.hash(progress)?;
        drop(lease);
        for ((digest, fault), worlds) in self.faults {
            let worlds = worlds.into_iter().collect();
            self.report.findings.push(Finding::Blob {
                digest,
                fault,
                worlds,
            });
        }
        let findings = &mut self.report.findings;
        findings.sort();
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity()));
        Ok(self.report)
    }

    fn found(&mut self, finding: Finding) {
        self.report.findings.push(finding);
    }

    fn layout(&mut self) -> Result<()> {
        let root = self.store.root();
        let why = match folder::stat(root, LAYOUT_NAME)? {
            None => "is missing".to_owned(),
            Some(_) => match check_layout(root) {
                Ok(()) => return Ok(()),
                Err(error) => error.to_string(),
            },
        };
        self.found(Finding::Layout { why });
        Ok(())
    }

    /// Reads the index and everything it leads to, except content.
    fn index(&mut self) -> Result<Lease> {
        // No sweep and no change of the index between reading it and holding what it needs.
        let lock = self.store.lock_shared()?;
        let lease = self.store.new_lease(&lock)?;
        let index = match self.store.index() {
            Ok(index) => index,
            Err(error) => {
                let why = error.to_string();
                self.found(Finding::Index { why });
                return Ok(lease);
            }
        };
        for (digest, entry, _) in index.worlds() {
            self.report.worlds += 1;
            let mut reach = Reach::of(self.store, entry)?;
            lease.note(reach.blobs.keys(), &lock)?;
            reach.check_presence(self.store);
            for reached in reach.blobs.keys() {
                self.users.entry(*reached).or_default().insert(digest);
            }
            for (blob, fault) in reach.faults {
                self.faults.entry((blob, fault)).or_default().insert(digest);
            }
        }
        drop(lock);
        self.entries(&index);
        Ok(lease)
    }

    fn entries(&mut self, index: &Index) {
        let mut names: BTreeMap<&str, Option<Digest>> = BTreeMap::new();
        let mut twice = BTreeSet::new();
        for entry in &index.entries {
            let digest = digest_of(entry);
            let shown = name_of(entry).unwrap_or(entry.digest().as_ref());
            let bad = |why: String| Finding::Entry {
                entry: shown.chars().take(200).collect(),
                why,
            };
            if let Err(error) = &digest {
                self.report.findings.push(bad(error.to_string()));
            } else if !Document::is_one(entry.media_type()) {
                let media_type = entry.media_type();
                let why = format!("leads to {media_type}, no manifest or index");
                self.report.findings.push(bad(why));
            }
            let Some(name) = name_of(entry) else {
                continue;
            };
            let with_tag = |name: &str| name.parse::<WorldName>().is_ok();
            if !with_tag(name) {
                self.report
                    .findings
                    .push(bad("is no name for a world".into()));
            }
            if let Some(other) = names.insert(name, digest.as_ref().ok().copied())
                && other != digest.ok()
                && twice.insert(name)
            {
                let name = name.chars().take(200).collect();
                self.report.findings.push(Finding::DuplicateName { name });
            }
        }
    }

    /// Looks at every name in every folder of the store.
    fn names(&mut self) -> Result<()> {
        let store = self.store;
        let root = rustix::fs::fstat(store.root()).context(|| "look at the store")?;
        self.mode(".", &root);
        let top = [LAYOUT_NAME, INDEX_NAME, BLOBS, PRIVATE];
        self.expect_only(store.root(), "", &[&top[..], &NEIGHBOURS].concat())?;
        let blobs = folder::open_folder(store.root(), BLOBS)?;
        self.expect_only(blobs.as_fd(), BLOBS, &[SHA256])?;
        let ours = [
            LOCK_NAME,
            LEASES,
            TMP,
            PAGES,
            WORK,
            RESCUED,
            DAMAGED,
            WORKING_SETS,
        ];
        self.expect_only(store.private(), PRIVATE, &ours)?;
        for name in folder::names(store.blobs())? {
            let path = format!("{BLOBS}/{SHA256}/{name}");
            let Some(stat) = folder::stat(store.blobs(), &name)? else {
                continue;
            };
            match blob_named(&name) {
                Some(_) => self.mode(&path, &stat),
                None => self.found(Finding::Foreign { path }),
            }
        }
        self.leftovers()
    }

    fn expect_only(&mut self, dir: BorrowedFd, path: &str, expected: &[&str]) -> Result<()> {
        for name in folder::names(dir)? {
            let path = match path {
                "" => name.clone(),
                path => format!("{path}/{name}"),
            };
            if !expected.contains(&name.as_str()) {
                self.found(Finding::Foreign { path });
            } else if let Some(stat) = folder::stat(dir, &name)? {
                self.mode(&path, &stat);
            }
        }
        Ok(())
    }

    fn mode(&mut self, path: &str, stat: &Stat) {
        let mode = stat.st_mode & 0o7777;
        let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        if mode & 0o077 != 0 && !is_link {
            self.found(Finding::Mode {
                path: path.to_owned(),
                mode,
            });
        }
    }

    /// What dead processes left.
    fn leftovers(&mut self) -> Result<()> {
        let store = self.store;
        let lock = store.lock_exclusive()?;
        for (dir, folder) in [(store.leases(), LEASES), (store.tmp(), TMP)] {
            for name in folder::names(dir)? {
                let path = format!("{PRIVATE}/{folder}/{name}");
                let Ok(opened) = folder::open_file_with(dir, &name, OFlags::RDONLY) else {
                    self.found(Finding::Foreign { path });
                    continue;
                };
                let Some((file, stat)) = opened else {
                    continue;
                };
                if !lock::is_orphan(&file, &lock)? {
                    continue;
                }
                let size = stat.st_size as u64;
                self.found(match (folder, is_partial(&name)) {
                    (LEASES, _) => Finding::DeadLease { path },
                    (_, Some(digest)) => Finding::Partial { digest, size },
                    (_, None) => Finding::DeadTemporary { path, size },
                });
            }
        }
        Ok(())
    }

    /// Hashes all blobs, also those that no world needs: one that is damaged would be taken
    /// for what its name says by the next world that has such content.
    fn hash(&mut self, progress: &(dyn Fn(u64) + Sync)) -> Result<()> {
        let names = folder::names(self.store.blobs())?;
        let mut blobs = Vec::new();
        for digest in names.iter().filter_map(|name| blob_named(name)) {
            let stat = folder::stat(self.store.blobs(), &digest.hex())?;
            blobs.push((digest, stat.map_or(0, |stat| stat.st_size)));
        }
        // The big ones first, so that the cores end together.
        blobs.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
        let store = self.store;
        let hashed = on_all_cores(&blobs, |(digest, _)| {
            Ok((*digest, hash_blob(store, digest, progress)))
        })?;
        for (digest, hashed) in hashed {
            let fault = match hashed {
                Ok(None) => continue, // Swept meanwhile: nobody needed it.
                Ok(Some((found, size))) => {
                    self.report.blobs += 1;
                    self.report.bytes += size;
                    match found == digest {
                        true => continue,
                        false => Fault::Corrupt { found },
                    }
                }
                Err(fault) => fault,
            };
            let worlds = self.users.get(&digest).cloned().unwrap_or_default();
            self.add_fault(digest, fault, worlds);
        }
        Ok(())
    }

    /// A blob of the wrong size is also of the wrong content: that is told once.
    fn add_fault(&mut self, digest: Digest, fault: Fault, worlds: BTreeSet<Digest>) {
        let mut known = self.faults.keys().filter(|(blob, _)| *blob == digest);
        if known.next().is_none() {
            self.faults.insert((digest, fault), worlds);
        }
    }
}

fn blob_named(name: &str) -> Option<Digest> {
    format!("sha256:{name}").parse().ok()
}

fn hash_blob(
    store: &Store,
    digest: &Digest,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Option<(Digest, u64)>, Fault> {
    let blob = match store.blob_if_there(digest) {
        Ok(Some(blob)) => blob,
        Ok(None) => return Ok(None),
        Err(error) => return Err(Fault::of_error(&error)),
    };
    read_all(&blob.file, progress)
        .map(|hashing| Some(hashing.finish()))
        .map_err(|error| Fault::Unreadable {
            why: error.to_string(),
        })
}

fn read_all(file: &File, progress: &(dyn Fn(u64) + Sync)) -> std::io::Result<Hashing> {
    let mut hashing = Hashing::default();
    let mut buffer = vec![0; BLOCK];
    loop {
        match file.read_at(&mut buffer, hashing.size()) {
            Ok(0) => return Ok(hashing),
            Ok(count) => {
                hashing.update(&buffer[..count]);
                progress(count as u64);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
