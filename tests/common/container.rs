//! A container under test.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::ctr::{self, BUSYBOX, PYTHON, RUNTIME, within};
use super::rpc::{Containerd, Streams};
use super::suite::Test;

/// Where containerd keeps bundles.
pub const BUNDLES: &str = "/run/containerd/io.containerd.runtime.v2.task/default";

/// Counts in memory ten times a second and tells it in `/count`, with the
/// longest time between two rounds in 10 ms: a restored counter goes on, a
/// restarted one does not.
const COUNTER: &str = "
n=0 longest=0
read last _ </proc/uptime; last=${last%.*}${last#*.}
while :; do
  n=$((n+1))
  read now _ </proc/uptime; now=${now%.*}${now#*.}
  [ $((now-last)) -le $longest ] || longest=$((now-last))
  last=$now
  echo $n $longest >/count.new; mv /count.new /count
  sleep 0.1
done";

/// The same, with MIB MiB of memory of which no page is like another. Notes SIGTERM in `/got-term`.
const BIG: &str = "
import os, signal, time
block = os.urandom(1 << 20)
held = bytearray(MIB << 20)
for at in range(0, len(held), 4096):
    held[at:at + 8] = at.to_bytes(8, 'little')
    held[at + 8:at + 4096] = block[:4088]
signal.signal(signal.SIGTERM, lambda *_: open('/got-term', 'w'))
n, longest, last = 0, 0, time.monotonic()
while True:
    n += 1
    now = time.monotonic()
    longest, last = max(longest, int((now - last) * 100)), now
    open('/count.new', 'w').write('%d %d' % (n, longest))
    os.rename('/count.new', '/count')
    time.sleep(0.05)
";

/// A container with a task. The suite removes it.
pub struct Container {
    pub id: String,
}

impl Container {
    /// Runs a container in the background.
    #[track_caller]
    pub fn run(
        test: &Test,
        name: &str,
        options: &[&str],
        image: &str,
        program: &[&str],
    ) -> Container {
        let id = test.id(name);
        let mut words = vec!["run", "-d", "--runtime", RUNTIME, "--null-io"];
        words.extend(options);
        words.extend([image, &id]);
        words.extend(program);
        ctr::ok(&words);
        Container { id }
    }

    /// Runs a counter that has begun to count.
    #[track_caller]
    pub fn counter(test: &Test, name: &str, options: &[&str]) -> Container {
        Container::counter_on(test, name, options, BUSYBOX)
    }

    /// The same, on another image that has a shell.
    pub fn counter_on(test: &Test, name: &str, options: &[&str], image: &str) -> Container {
        let container = Container::run(test, name, options, image, &["sh", "-c", COUNTER]);
        container.counts_past(2);
        container
    }

    /// Runs a counter with so many MiB of memory, whose dump takes a while.
    #[track_caller]
    pub fn big(test: &Test, name: &str, mib: u32) -> Container {
        let program = BIG.replace("MIB", &mib.to_string());
        let container = Container::run(test, name, &[], PYTHON, &["python3", "-c", &program]);
        within(60, "a big process", || container.count() > 2);
        container
    }

    /// Brings a checkpoint back under this name.
    #[track_caller]
    pub fn restore(test: &Test, name: &str, image: &str) -> Container {
        let id = test.id(name);
        ctr::ok(&["container", "restore", "--rw", "--live", &id, image]);
        Container { id }
    }

    /// A container without a task: see [`Container::start`].
    #[track_caller]
    pub fn create(
        test: &Test,
        name: &str,
        options: &[&str],
        image: &str,
        program: &[&str],
    ) -> Container {
        let id = test.id(name);
        let mut words = vec!["container", "create", "--runtime", RUNTIME];
        words.extend(options);
        words.extend([image, &id]);
        words.extend(program);
        ctr::ok(&words);
        Container { id }
    }

    /// Starts a task in it, brought back from a world where one is given.
    #[track_caller]
    pub fn start(&self, world: Option<&Path>, streams: &Streams) {
        let containerd = Containerd::connect();
        let made = containerd.create(&self.id, world, streams);
        made.unwrap_or_else(|error| panic!("create {}: {}", self.id, error.message()));
        let started = containerd.start(&self.id);
        started.unwrap_or_else(|error| panic!("start {}: {}", self.id, error.message()));
    }

    /// `ctr container checkpoint --rw --task`.
    #[track_caller]
    pub fn checkpoint(&self, image: &str) {
        ctr::ok(&["container", "checkpoint", "--rw", "--task", &self.id, image]);
    }

    /// `ctr task checkpoint --image-path`, into a folder of the test's.
    #[track_caller]
    pub fn checkpoint_to(&self, test: &Test, name: &str) -> PathBuf {
        let path = test.path(name);
        ctr::ok(&[
            "task",
            "checkpoint",
            "--image-path",
            path.to_str().expect("UTF-8"),
            &self.id,
        ]);
        path
    }

    /// The bundle's folder.
    pub fn bundle(&self) -> PathBuf {
        PathBuf::from(BUNDLES).join(&self.id)
    }

    /// A path in the container's root.
    pub fn path(&self, name: &str) -> PathBuf {
        self.bundle()
            .join("rootfs")
            .join(name.trim_start_matches('/'))
    }

    /// The contents of a file in the container's root, trimmed.
    #[track_caller]
    pub fn read(&self, name: &str) -> String {
        let path = self.path(name);
        let text = fs::read_to_string(&path);
        text.unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
            .trim()
            .to_owned()
    }

    /// How far the counter is; 0 before it counts.
    pub fn count(&self) -> u64 {
        self.told(0)
    }

    /// The longest time between two rounds of the counter.
    pub fn longest_gap(&self) -> Duration {
        Duration::from_millis(self.told(1) * 10)
    }

    fn told(&self, word: usize) -> u64 {
        let text = fs::read_to_string(self.path("/count")).unwrap_or_default();
        text.split_whitespace()
            .nth(word)
            .and_then(|word| word.parse().ok())
            .unwrap_or(0)
    }

    /// Waits for the counter.
    #[track_caller]
    pub fn counts_past(&self, count: u64) {
        within(20, &format!("{} counts past {count}", self.id), || {
            self.count() > count
        });
    }

    /// The counter goes on from `count`, where the checkpoint was, and did not start anew.
    #[track_caller]
    pub fn goes_on_from(&self, count: u64) {
        self.counts_past(count);
        let now = self.count();
        assert!(now < count + 600, "{}: {now} is far from {count}", self.id);
    }

    #[track_caller]
    pub fn status(&self) -> String {
        ctr::status(&self.id).unwrap_or_else(|| panic!("there is no task {}", self.id))
    }

    /// Runs a command in the container and gives its output, trimmed.
    #[track_caller]
    pub fn exec(&self, program: &[&str]) -> String {
        let exec_id = format!("e{}", unique());
        let mut words = vec!["task", "exec", "--exec-id", &exec_id, &self.id];
        words.extend(program);
        ctr::ok(&words).trim().to_owned()
    }

    /// Its init's process id.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        let list = ctr::ok(&["task", "ls"]);
        let mut rows = list
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = rows.find(|row| row.first() == Some(&self.id.as_str()));
        row.and_then(|row| row.get(1)?.parse().ok())
            .expect("a process id")
    }

    /// The paths of its init's control groups, each once.
    pub fn cgroups(&self) -> Vec<String> {
        let text = fs::read_to_string(format!("/proc/{}/cgroup", self.pid())).unwrap_or_default();
        let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
        // The lab's unused hierarchies show the lab's own place.
        let mut paths: Vec<String> = paths
            .filter(|path| *path != "/")
            .map(str::to_owned)
            .collect();
        paths.sort();
        paths.dedup();
        paths
    }

    /// Ends it and removes it.
    #[track_caller]
    pub fn remove(self) {
        ctr::remove(&self.id);
    }

    /// Takes note of a counter before something is done to it.
    pub fn before(&self) -> Before<'_> {
        Before {
            container: self,
            count: self.count(),
            gap: self.longest_gap(),
            begun: Instant::now(),
        }
    }
}

/// A counter before something was done to it.
pub struct Before<'a> {
    container: &'a Container,
    pub count: u64,
    gap: Duration,
    begun: Instant,
}

impl Before<'_> {
    /// The counter runs, thawed, and never stood still longer than what was
    /// done to it took.
    #[track_caller]
    pub fn unharmed(&self) {
        let took = self.begun.elapsed();
        let container = self.container;
        assert_eq!(container.status(), "RUNNING", "{}", container.id);
        let now = container.count();
        assert!(now >= self.count, "{} started anew", container.id);
        container.counts_past(now + 1);
        let most = self.gap.max(took) + Duration::from_millis(700);
        let gap = container.longest_gap();
        assert!(
            gap <= most,
            "{} stood still for {gap:?}, the call took {took:?}",
            container.id
        );
    }
}

/// A number that is given once.
pub fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
