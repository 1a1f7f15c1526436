//! Cgroups on the real hierarchies of this host, v1 or v2. Needs root.
//!
//! Every test works below a top of its own, which is removed with all that
//! lives in it; tops left by a killed run are removed by the next.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{RwLock, RwLockReadGuard};
use std::thread::sleep;
use std::time::{Duration, Instant};

use containerd_shim::protos::protobuf::Message;
use containerd_shim::protos::{cgroups, cgroups_v2};
use oci_spec::runtime::LinuxResources;
use rustix::process::{Pid, Signal};
use worldshim::ErrorKind;
use worldshim::cgroup::{Cgroup, FreezerState, Mode, OomEvent};

const TOP: &str = "worldshim-test";
const SECOND: Duration = Duration::from_secs(1);

/// Held shared by all tests but the one that moves this very process.
static ALONE: RwLock<()> = RwLock::new(());

/// A top cgroup path for one test; removes everything below it at its end.
struct Top {
    path: PathBuf,
    _shared: Option<RwLockReadGuard<'static, ()>>,
}

impl Top {
    fn new() -> Top {
        let shared = ALONE
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut top = Top::unshared();
        top._shared = Some(shared);
        top
    }

    fn unshared() -> Top {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(
            rustix::process::geteuid().is_root(),
            "this test needs root: it makes cgroups"
        );
        if NEXT.load(Ordering::Relaxed) == 0 {
            remove_tops_of_dead_runs();
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/{TOP}-{}-{number}", std::process::id()));
        Top {
            path,
            _shared: None,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn create(&self, name: &str, resources: &str) -> Cgroup {
        Cgroup::create(&self.path(name), &limits(resources)).expect("create a cgroup")
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        let top = Cgroup::at(&self.path).expect("a path below the top");
        top.kill_all().expect("kill what the test left");
        top.remove().expect("remove what the test left");
    }
}

fn remove_tops_of_dead_runs() {
    let probe = Cgroup::at(Path::new(TOP)).expect("cgroups are mounted");
    for procs in probe.procs_files() {
        let mount = procs.ancestors().nth(2).expect("a mount point");
        for entry in fs::read_dir(mount).expect("list cgroups").flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            let pid = name
                .strip_prefix(TOP)
                .and_then(|rest| rest.split('-').nth(1));
            if let Some(pid) = pid
                && !Path::new("/proc").join(pid).exists()
            {
                let stale = Cgroup::at(Path::new(&name)).expect("a stale cgroup");
                stale.kill_all().expect("kill a dead run's processes");
                stale.remove().expect("remove a dead run's cgroup");
            }
        }
    }
}

/// A child process in a cgroup, killed and reaped at its end.
struct Process(Child);

impl Process {
    fn shell(cgroup: &Cgroup, script: &str) -> Process {
        // It joins before it runs its script: no fork escapes.
        let child = Command::new("sh")
            .args(["-c", &format!("read go; {script}")])
            .stdin(Stdio::piped())
            .spawn()
            .expect("start sh");
        let mut process = Process(child);
        cgroup.add(process.pid()).expect("join the cgroup");
        drop(process.0.stdin.take());
        process
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    fn runs(&mut self) -> bool {
        self.0.try_wait().expect("wait for a child").is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn limits(json: &str) -> LinuxResources {
    serde_json::from_str(json).expect("valid resources")
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + 20 * SECOND;
    while !condition() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        sleep(Duration::from_millis(5));
    }
}

/// The text of a file that v1 and v2 call differently.
fn read(cgroup: &Cgroup, controller: &str, v1: &str, v2: &str) -> String {
    let name = match cgroup.mode() {
        Mode::V1 => v1,
        Mode::V2 => v2,
    };
    let path = cgroup.dir(controller).expect("the controller").join(name);
    fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
        .trim()
        .to_owned()
}

/// A file that a process writes to without end, to see whether it runs.
struct Ticker {
    dir: tempfile::TempDir,
}

impl Ticker {
    fn new() -> Ticker {
        Ticker {
            dir: tempfile::tempdir().expect("a directory"),
        }
    }

    fn script(&self) -> String {
        let file = self.dir.path().join("ticks");
        format!("while :; do echo x >> {}; done", file.display())
    }

    fn ticks(&self) -> u64 {
        fs::metadata(self.dir.path().join("ticks")).map_or(0, |m| m.len())
    }

    fn assert_running(&self) {
        let before = self.ticks();
        eventually("the process goes on", || self.ticks() > before);
    }

    fn assert_still(&self) {
        let before = self.ticks();
        sleep(Duration::from_millis(50));
        assert_eq!(self.ticks(), before, "the process runs while frozen");
    }
}

#[test]
fn created_joined_emptied_and_removed() {
    let top = Top::new();
    let cgroup = top.create("c", "{}");
    for procs in cgroup.procs_files() {
        assert!(procs.exists(), "{}", procs.display());
    }
    let mut process = Process::shell(&cgroup, "sleep 1000");
    assert!(cgroup.pids().unwrap().contains(&process.pid()));
    assert_eq!(Cgroup::of_pid(process.pid()).unwrap(), cgroup);

    let error = cgroup.remove().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongState, "{error}");
    assert!(
        error.to_string().contains("process(es) live in it"),
        "{error}"
    );
    assert!(process.runs(), "removing never kills");

    cgroup.kill_all().unwrap();
    assert_eq!(cgroup.pids().unwrap(), []);
    cgroup.remove().unwrap();
    assert!(!cgroup.exists());
    cgroup.remove().unwrap();
    cgroup.kill_all().unwrap();
    assert_eq!(cgroup.stats().unwrap_err().kind(), ErrorKind::NotFound);
    eventually("the child is dead", || !process.runs());
}

#[test]
fn a_cgroup_in_use_is_not_joined() {
    let top = Top::new();
    let cgroup = top.create("c", "{}");
    let mut process = Process::shell(&cgroup, "sleep 1000");
    let error = Cgroup::create(&top.path("c"), &limits("{}")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert!(
        error.to_string().contains(&process.0.id().to_string()),
        "{error}"
    );
    assert!(process.runs());
}

#[test]
fn a_left_over_cgroup_is_made_anew() {
    let top = Top::new();
    let cgroup = top.create("c", r#"{"pids":{"limit":7}}"#);
    assert_eq!(read(&cgroup, "pids", "pids.max", "pids.max"), "7");
    let cgroup = top.create("c", "{}");
    assert_eq!(read(&cgroup, "pids", "pids.max", "pids.max"), "max");
}

#[test]
fn limits_are_applied_and_updated() {
    let top = Top::new();
    let cgroup = top.create(
        "c",
        r#"{"memory":{"limit":33554432,"swap":33554432},"pids":{"limit":20},
            "cpu":{"shares":512,"quota":50000,"period":100000},
            "devices":[{"allow":false,"access":"rwm"}]}"#,
    );
    let memory = |c: &Cgroup| read(c, "memory", "memory.limit_in_bytes", "memory.max");
    let pids = |c: &Cgroup| read(c, "pids", "pids.max", "pids.max");
    assert_eq!(memory(&cgroup), "33554432");
    assert_eq!(pids(&cgroup), "20");
    match cgroup.mode() {
        Mode::V1 => {
            assert_eq!(read(&cgroup, "cpu", "cpu.shares", ""), "512");
            assert_eq!(read(&cgroup, "cpu", "cpu.cfs_quota_us", ""), "50000");
        }
        Mode::V2 => assert_eq!(read(&cgroup, "cpu", "", "cpu.max"), "50000 100000"),
    }
    // Up and down again, both at once: the order of the two writes matters on v1.
    for limit in ["67108864", "16777216"] {
        cgroup
            .update(&limits(&format!(
                r#"{{"memory":{{"limit":{limit},"swap":{limit}}}}}"#
            )))
            .unwrap();
        assert_eq!(memory(&cgroup), limit);
        assert_eq!(pids(&cgroup), "20", "unnamed limits stay");
    }
    let error = cgroup
        .update(&limits(r#"{"cpu":{"cpus":"9999"}}"#))
        .unwrap_err();
    assert!(error.to_string().contains("cpuset.cpus"), "{error}");
}

#[test]
fn an_impossible_limit_leaves_nothing() {
    let top = Top::new();
    let path = top.path("c");
    let error = Cgroup::create(&path, &limits(r#"{"cpu":{"cpus":"9999"}}"#)).unwrap_err();
    assert!(error.to_string().contains("cpuset.cpus"), "{error}");
    assert!(!Cgroup::at(&path).unwrap().exists());
}

#[test]
fn updating_what_is_gone_says_so() {
    let top = Top::new();
    let cgroup = Cgroup::at(&top.path("c")).unwrap();
    let error = cgroup.update(&limits("{}")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[test]
fn frozen_stands_still_and_drop_thaws() {
    let top = Top::new();
    let cgroup = top.create("c", "{}");
    let ticker = Ticker::new();
    let _process = Process::shell(&cgroup, &ticker.script());
    ticker.assert_running();
    let freezer = cgroup.freezer().unwrap();
    assert_eq!(freezer.state().unwrap(), FreezerState::Thawed);

    let frozen = cgroup.freeze(5 * SECOND).unwrap();
    assert_eq!(freezer.state().unwrap(), FreezerState::Frozen);
    println!("frozen after {:?}", frozen.since() - frozen.asked());
    assert!(frozen.since() - frozen.asked() < SECOND);
    ticker.assert_still();
    drop(frozen);
    assert_eq!(freezer.state().unwrap(), FreezerState::Thawed);
    ticker.assert_running();

    let frozen = cgroup.freeze(5 * SECOND).unwrap();
    let still_since = frozen.since();
    assert!(frozen.thaw().unwrap() >= still_since);
    ticker.assert_running();
}

#[test]
fn a_paused_container_stays_paused() {
    let top = Top::new();
    let cgroup = top.create("c", "{}");
    let ticker = Ticker::new();
    let _process = Process::shell(&cgroup, &ticker.script());
    ticker.assert_running();
    let freezer = cgroup.freezer().unwrap();
    cgroup.freeze(5 * SECOND).unwrap().leave_frozen();
    ticker.assert_still();

    let again = cgroup.freeze(5 * SECOND).unwrap();
    assert!(again.was_frozen());
    drop(again);
    assert_eq!(freezer.state().unwrap(), FreezerState::Frozen);
    ticker.assert_still();
    freezer.thaw().unwrap();
    ticker.assert_running();
}

#[test]
fn what_lies_below_belongs_to_it() {
    let top = Top::new();
    let cgroup = top.create("c", "{}");
    let below = top.create("c/deep/er", "{}");
    let ticker = Ticker::new();
    let process = Process::shell(&below, &ticker.script());
    ticker.assert_running();
    assert_eq!(cgroup.pids().unwrap(), [process.pid()]);
    let frozen = cgroup.freeze(5 * SECOND).unwrap();
    ticker.assert_still();
    assert_eq!(
        below.freezer().unwrap().state().unwrap(),
        FreezerState::Frozen
    );
    let error = below.freezer().unwrap().thaw().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongState, "{error}");
    drop(frozen);
    ticker.assert_running();
    cgroup.kill_all().unwrap();
    cgroup.remove().unwrap();
    assert!(!below.exists());
}

#[test]
fn frozen_and_forking_processes_are_killed() {
    let top = Top::new();
    let cgroup = top.create("c", "{}");
    let mut process = Process::shell(&cgroup, "while :; do sleep 100 & sleep 0.001; done");
    eventually("it forks", || cgroup.pids().unwrap().len() > 5);
    cgroup.freeze(5 * SECOND).unwrap().leave_frozen();
    cgroup.kill_all().unwrap();
    assert_eq!(cgroup.pids().unwrap(), []);
    eventually("the child is dead", || !process.runs());
    cgroup.remove().unwrap();
}

#[test]
fn a_signal_reaches_everyone() {
    let top = Top::new();
    let cgroup = top.create("c", "{}");
    let mut processes: Vec<_> = (0..3)
        .map(|_| Process::shell(&cgroup, "exec sleep 1000"))
        .collect();
    assert_eq!(cgroup.signal_all(Signal::TERM).unwrap(), 3);
    for process in &mut processes {
        eventually("a child is dead", || !process.runs());
    }
    assert_eq!(cgroup.signal_all(Signal::TERM).unwrap(), 0);
}

/// A process that no signal and no freezer reaches: it waits for another one's
/// look-up of the same file, which waits for a file server that never answers.
struct Stuck {
    // Dropped first: with the server gone, both go on and die.
    _server: fs::File,
    process: Process,
    _dir: tempfile::TempDir,
}

impl Stuck {
    fn new() -> Stuck {
        use command_fds::{CommandFdExt, FdMapping};
        // On kernels with FUSE as a module; where it is built in there is nothing to load.
        let _ = Command::new("modprobe").arg("fuse").output();
        let server = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .expect("open /dev/fuse");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file").display().to_string();
        let mount = dir.path().display();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg(format!(
                "mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none {mount} &&
                 exec 3>&- && {{ cat {file} & }} && sleep 0.3 && exec cat {file}"
            ))
            .stdin(Stdio::null());
        command
            .fd_mappings(vec![FdMapping {
                parent_fd: server.try_clone().unwrap().into(),
                child_fd: 3,
            }])
            .unwrap();
        let process = Process(command.spawn().expect("start unshare"));
        let stat = format!("/proc/{}/stat", process.0.id());
        eventually("cat waits for the other cat", || {
            fs::read_to_string(&stat).is_ok_and(|stat| stat.contains("(cat) D"))
        });
        Stuck {
            _server: server,
            process,
            _dir: dir,
        }
    }
}

#[test]
fn a_process_that_cannot_be_frozen_is_named_and_all_goes_on() {
    let top = Top::new();
    let cgroup = top.create("c", "{}");
    let ticker = Ticker::new();
    let _process = Process::shell(&cgroup, &ticker.script());
    let stuck = Stuck::new();
    cgroup.add(stuck.process.pid()).unwrap();

    let error = cgroup.freeze(SECOND / 5).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    let text = error.to_string();
    println!("{text}");
    let named = format!("pid {} (cat), state D", stuck.process.0.id());
    assert!(text.contains(&named), "{text}");
    assert!(!text.contains("(sh)"), "only the culprit is named: {text}");
    assert_eq!(
        cgroup.freezer().unwrap().state().unwrap(),
        FreezerState::Thawed
    );
    ticker.assert_running();
}

#[test]
fn our_own_cgroup_is_never_frozen_or_killed() {
    let _alone = ALONE
        .write()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let top = Top::unshared();
    let cgroup = top.create("c", "{}");
    let procs = cgroup.dir("freezer").unwrap().join("cgroup.procs");
    let home = freezer_home(&cgroup);
    let me = std::process::id().to_string();
    fs::write(&procs, &me).unwrap();
    let kinds = [
        cgroup.freeze(SECOND).map(|frozen| frozen.leave_frozen()),
        cgroup.kill_all(),
        cgroup.signal_all(Signal::KILL).map(|_| ()),
    ]
    .map(|result| result.map_err(|error| error.kind()));
    fs::write(home, &me).unwrap();
    assert_eq!(kinds, [Err(ErrorKind::WrongState); 3]);
}

/// The `cgroup.procs` of the cgroup this process was in, in the freezer's hierarchy.
fn freezer_home(cgroup: &Cgroup) -> PathBuf {
    let below_mount = cgroup.dir("freezer").unwrap().ancestors().nth(2).unwrap();
    let memberships = fs::read_to_string("/proc/self/cgroup").unwrap();
    let wanted = match cgroup.mode() {
        Mode::V1 => "freezer",
        Mode::V2 => "",
    };
    let path = memberships
        .lines()
        .map(|line| line.splitn(3, ':').collect::<Vec<_>>())
        .find(|parts| parts[1].split(',').any(|name| name == wanted))
        .map(|parts| parts[2].to_owned())
        .expect("this process's own cgroup");
    below_mount
        .join(path.trim_start_matches('/'))
        .join("cgroup.procs")
}

#[test]
fn stats_say_what_the_kernel_counts() {
    let top = Top::new();
    let cgroup = top.create(
        "c",
        r#"{"memory":{"limit":67108864,"swap":67108864},"pids":{"limit":20}}"#,
    );
    let _busy = Process::shell(
        &cgroup,
        "x=$(head -c 3000000 /dev/zero | tr '\\0' x); while :; do :; done",
    );
    let cpus = fs::read_to_string("/proc/stat")
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "))
        .count();
    eventually("a busy process shows in every part", || {
        let stats = cgroup.stats().unwrap();
        match cgroup.mode() {
            Mode::V1 => {
                assert_eq!(stats.type_url, "io.containerd.cgroups.v1.Metrics");
                let m = cgroups::metrics::Metrics::parse_from_bytes(&stats.value).unwrap();
                assert_eq!(m.pids.limit, 20);
                assert_eq!(m.memory.usage.limit, 67_108_864);
                assert_eq!(m.memory.hierarchical_memory_limit, 67_108_864);
                assert!(m.memory.kernel.is_some() && m.memory.kernel_tcp.is_some());
                assert!(m.memory_oom_control.is_some() && m.blkio.is_some());
                assert_eq!(m.memory.swap.limit, 67_108_864);
                // The kernel lists possible CPUs, of which some may not be there.
                assert!(m.cpu.usage.per_cpu.len() >= cpus);
                m.pids.current == 1
                    && m.memory.usage.usage > 0
                    && m.memory.total_rss > 0
                    && m.cpu.usage.total > 10_000_000
                    && m.cpu.usage.user > 0
            }
            Mode::V2 => {
                assert_eq!(stats.type_url, "io.containerd.cgroups.v2.Metrics");
                let m = cgroups_v2::metrics::Metrics::parse_from_bytes(&stats.value).unwrap();
                assert_eq!(m.pids.limit, 20);
                assert_eq!(m.memory.usage_limit, 67_108_864);
                assert!(m.memory_events.is_some() && m.io.is_some() && m.rdma.is_some());
                m.pids.current == 1
                    && m.memory.usage > 0
                    && m.memory.anon > 0
                    && m.cpu.usage_usec > 10_000
                    && m.cpu.user_usec > 0
            }
        }
    });
}

#[tokio::test]
async fn out_of_memory_is_told_and_so_is_the_end() {
    let top = Top::new();
    let cgroup = top.create("c", r#"{"memory":{"limit":16777216,"swap":16777216}}"#);
    let mut watch = cgroup.oom_watch().unwrap();
    assert_eq!(watch.read().unwrap(), None);
    // tail keeps the last line of endless zeros in memory.
    let _victim = Process::shell(&cgroup, "exec tail /dev/zero");
    assert_eq!(next(&mut watch).await, OomEvent::Killed);
    let path = cgroup.clone();
    let removed = std::thread::spawn(move || {
        path.kill_all().unwrap();
        sleep(Duration::from_millis(50));
        path.remove().unwrap();
    });
    // The same out-of-memory may be told in more than one signal.
    let mut event = next(&mut watch).await;
    while event == OomEvent::Killed {
        event = next(&mut watch).await;
    }
    assert_eq!(event, OomEvent::Gone);
    assert_eq!(next(&mut watch).await, OomEvent::Gone);
    removed.join().unwrap();
}

#[tokio::test]
async fn a_cgroup_that_ends_in_peace_tells_no_kill() {
    let top = Top::new();
    let cgroup = top.create("c", r#"{"memory":{"limit":67108864}}"#);
    let mut watch = cgroup.oom_watch().unwrap();
    let beside = top.create("beside", "{}");
    beside.remove().unwrap();
    assert_eq!(watch.read().unwrap(), None, "a neighbour's end is not ours");
    cgroup.remove().unwrap();
    assert_eq!(next(&mut watch).await, OomEvent::Gone);
}

async fn next(watch: &mut worldshim::cgroup::OomWatch) -> OomEvent {
    tokio::time::timeout(20 * SECOND, watch.next())
        .await
        .expect("an event within 20 s")
        .expect("a working watch")
}

#[test]
fn device_rules_hold() {
    let top = Top::new();
    let cgroup = top.create(
        "c",
        r#"{"devices":[{"allow":false,"access":"rwm"},
            {"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]}"#,
    );
    let succeeds = |script: &str| {
        let mut process = Process::shell(&cgroup, script);
        process.0.wait().expect("wait for sh").success()
    };
    assert!(succeeds("exec 3<>/dev/null"));
    assert!(succeeds("exec 3</dev/kmsg"), "may be read");
    assert!(!succeeds("exec 3>/dev/kmsg"), "may not be written");
    cgroup.update(&limits(r#"{"pids":{"limit":9}}"#)).unwrap();
    assert!(
        !succeeds("exec 3>/dev/kmsg"),
        "an update of other limits keeps the rules"
    );
}
