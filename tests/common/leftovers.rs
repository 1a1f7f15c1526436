//! What containers left behind: files, control groups, mounts, processes.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// What the host keeps on purpose: which CRIU it has, and the folder of page servers' sockets.
const KEPT: [&str; 3] = [
    "file /run/worldshim",
    "file /run/worldshim/criu.json",
    "file /run/worldshim/pages",
];

/// Lines like `file /run/x`, `mount /run/y`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leftovers(BTreeSet<String>);

impl Leftovers {
    /// Everything at this moment that has `needle` in its name.
    pub fn of(needle: &str) -> Leftovers {
        let mut found = BTreeSet::new();
        for top in ["/run", "/tmp"] {
            walk("file", Path::new(top), needle, true, &mut found);
        }
        walk(
            "cgroup",
            Path::new("/sys/fs/cgroup"),
            needle,
            false,
            &mut found,
        );
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read mountinfo");
        for line in mounts.lines().filter(|line| line.contains(needle)) {
            found.insert(format!("mount {}", line.split(' ').nth(4).unwrap_or(line)));
        }
        processes(needle, &mut found);
        found.retain(|line| !KEPT.contains(&line.as_str()));
        Leftovers(found)
    }

    /// What is here and not in `before`.
    pub fn beyond(self, before: &Leftovers) -> Leftovers {
        Leftovers(self.0.difference(&before.0).cloned().collect())
    }

    /// Nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Display for Leftovers {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(out, "  {line}"))
    }
}

/// Looks until nothing is left, for 5 s at most: a shim ends a moment after its last container.
pub fn settled(look: impl Fn() -> Leftovers) -> Leftovers {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let left = look();
        if left.is_empty() || Instant::now() > end {
            return left;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn walk(kind: &str, dir: &Path, needle: &str, files: bool, found: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if (is_dir || files) && path.to_string_lossy().contains(needle) {
            found.insert(format!("{kind} {}", path.display()));
        }
        if is_dir {
            walk(kind, &path, needle, files, found);
        }
    }
}

/// By command line, environment and control group. With no needle: by command
/// line only, and without those that come and go by themselves.
fn processes(needle: &str, found: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir("/proc") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.parse::<u32>().is_err() || name == std::process::id().to_string() {
            continue;
        }
        let read = |file: &str| -> String {
            let bytes = fs::read(entry.path().join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let command = read("cmdline");
        let is_ours = match needle {
            "" => !command.is_empty() && !command.starts_with("ctr events"),
            needle => {
                command.contains(needle)
                    || read("environ").contains(needle)
                    || read("cgroup").contains(needle)
            }
        };
        if is_ours {
            found.insert(format!("process {}", command.trim()));
        }
    }
}
