//! Real containers: made by runc, and places for restored ones.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Root filesystem of all test containers: busybox and python. Not the lab's
/// own root, which is an overlay: CRIU cannot dump a process on two of them.
fn base() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| {
        let base = PathBuf::from(format!("/tmp/criu-test-base-{}", std::process::id()));
        run(Command::new("sh").args(["-ec", MAKE_BASE, "sh"]).arg(&base));
        base
    })
}

const MAKE_BASE: &str = r#"
mkdir -p "$1"; cd "$1"
mkdir -p usr/bin usr/lib usr/lib64 usr/sbin proc dev sys etc tmp root run var/tmp data
ln -s usr/bin bin; ln -s usr/sbin sbin; ln -s usr/lib lib; ln -s usr/lib64 lib64
cp /usr/bin/busybox usr/bin/
for applet in $(busybox --list); do [ -e usr/bin/$applet ] || ln -s busybox usr/bin/$applet; done
python=$(readlink -f /usr/bin/python3)
cp $python usr/bin/python3
cp -r /usr/lib/python3.[0-9]* usr/lib/
for library in $(ldd $python usr/lib/python3.*/lib-dynload/*.so | grep -o '/[^ ]*' | sort -u); do
    case $library in *:|$PWD*) ;; *) mkdir -p .$(dirname $library); cp -L $library .$library ;; esac
done
"#;

/// Fails with a plain sentence outside the lab.
pub fn require_lab() {
    assert!(
        std::env::var_os("WORLDSHIM_LAB").is_some(),
        "this test needs the lab: run it with `tests/lab/run cargo-built-test-binary`"
    );
    assert!(rustix::process::geteuid().is_root(), "this test needs root");
}

pub fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?} failed: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Waits up to 10 s for `probe` to give a value.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A bundle with an overlay of the lab's own root, and cgroups of its own.
pub struct Place {
    pub id: String,
    pub base: PathBuf,
    pub spec: Value,
}

impl Place {
    pub fn new(args: &[&str]) -> Place {
        require_lab();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("criu-test-{}-{number}", std::process::id());
        let base = Path::new("/tmp").join(&id);
        for name in ["bundle/rootfs", "upper", "work", "images", "log"] {
            fs::create_dir_all(base.join(name)).unwrap();
        }
        run(Command::new("runc")
            .arg("spec")
            .current_dir(base.join("bundle")));
        let text = fs::read(base.join("bundle/config.json")).unwrap();
        let mut spec: Value = serde_json::from_slice(&text).unwrap();
        spec["process"]["args"] = json!(args);
        spec["process"]["terminal"] = json!(false);
        spec["root"]["readonly"] = json!(false);
        spec["hostname"] = json!(format!("host-{number}"));
        spec["linux"]["cgroupsPath"] = json!(format!("/{id}"));
        Place { id, base, spec }
    }

    /// The same spec with another identity and a copy of the upper layer.
    pub fn beside(other: &Place) -> Place {
        let mut place = Place::new(&[]);
        let mut spec = other.spec.clone();
        spec["hostname"] = place.spec["hostname"].clone();
        spec["linux"]["cgroupsPath"] = place.spec["linux"]["cgroupsPath"].clone();
        place.spec = spec;
        let from = other.base.join("upper/.");
        run(Command::new("cp")
            .arg("-a")
            .arg(from)
            .arg(place.base.join("upper")));
        place.mount();
        for procs in cgroup_procs(&place.id, true) {
            assert!(procs.exists());
        }
        place
    }

    pub fn spec(&self) -> Spec {
        serde_json::from_value(self.spec.clone()).unwrap()
    }

    pub fn rootfs(&self) -> PathBuf {
        self.base.join("bundle/rootfs")
    }

    pub fn images(&self) -> PathBuf {
        self.base.join("images")
    }

    pub fn log(&self) -> PathBuf {
        self.base.join("log")
    }

    pub fn cgroup_procs(&self) -> Vec<PathBuf> {
        cgroup_procs(&self.id, false)
    }

    pub fn freezer(&self) -> PathBuf {
        let v1 = Path::new("/sys/fs/cgroup/freezer");
        let base = if v1.exists() {
            v1
        } else {
            Path::new("/sys/fs/cgroup")
        };
        base.join(&self.id)
    }

    /// Adds a bind mount to the spec.
    pub fn bind(&mut self, destination: &str, source: &Path, options: &[&str]) {
        let mounts = self.spec["mounts"].as_array_mut().unwrap();
        mounts.push(json!({
            "destination": destination, "type": "bind", "source": source, "options": options
        }));
    }

    /// Has the spec enter a namespace by path.
    pub fn join(&mut self, kind: &str, path: &Value) {
        let namespaces = self.spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != kind);
        namespaces.push(json!({"type": kind, "path": path}));
    }

    /// Gives the root filesystem to an unprivileged user.
    pub fn own_rootfs(&self, id: u32) {
        let owner = format!("{id}:{id}");
        for directory in [
            self.base.join("upper"),
            self.base.clone(),
            self.base.join("bundle"),
        ] {
            run(Command::new("chown").arg(&owner).arg(directory));
        }
    }

    fn mount(&self) {
        let b = self.base.display();
        let base = base().display();
        let options = format!("lowerdir={base},upperdir={b}/upper,workdir={b}/work");
        let rootfs = self.rootfs();
        run(Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &options])
            .arg(rootfs));
    }

    /// Makes the container with runc and starts it; gives what it prints.
    pub fn start(self) -> (Container, OwnedFd) {
        let (reader, writer) = std::io::pipe().unwrap();
        let stdout = Stdio::from(writer.try_clone().unwrap());
        let container = self.start_with(Stdio::null(), stdout, Stdio::from(writer));
        (container, reader.into())
    }

    pub fn start_with(self, stdin: Stdio, stdout: Stdio, stderr: Stdio) -> Container {
        self.start_as(&[], stdin, stdout, stderr)
    }

    pub fn start_as(
        self,
        options: &[String],
        stdin: Stdio,
        stdout: Stdio,
        stderr: Stdio,
    ) -> Container {
        self.mount();
        let config = serde_json::to_vec(&self.spec).unwrap();
        fs::write(self.base.join("bundle/config.json"), config).unwrap();
        let pid_file = self.base.join("pid");
        let status = Command::new("runc")
            .args(["run", "--detach"])
            .args(options)
            .arg("--pid-file")
            .arg(&pid_file)
            .arg("--bundle")
            .arg(self.base.join("bundle"))
            .arg(&self.id)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            .status()
            .unwrap();
        assert!(status.success(), "runc run failed");
        let pid = fs::read_to_string(pid_file)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        Container { place: self, pid }
    }
}

/// Paths of a container's `cgroup.procs`, one per hierarchy.
fn cgroup_procs(id: &str, make: bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for mount in fs::read_to_string("/proc/self/mounts").unwrap().lines() {
        let fields: Vec<&str> = mount.split(' ').collect();
        if !fields[2].starts_with("cgroup") || !fields[1].starts_with("/sys/fs/cgroup") {
            continue;
        }
        let directory = Path::new(fields[1]).join(id);
        if make {
            fs::create_dir_all(&directory).unwrap();
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = fs::read(Path::new(fields[1]).join(file)) {
                    let _ = fs::write(directory.join(file), value);
                }
            }
        }
        if directory.exists() {
            found.push(directory.join("cgroup.procs"));
        }
    }
    found
}

pub fn freeze(cgroup: &Path, frozen: bool) {
    let v1 = cgroup.join("freezer.state");
    if v1.exists() {
        let state = if frozen { "FROZEN" } else { "THAWED" };
        fs::write(&v1, state).unwrap();
        eventually(state, || {
            let now = fs::read_to_string(&v1).unwrap();
            (now.trim() == state).then_some(())
        });
    } else {
        fs::write(cgroup.join("cgroup.freeze"), if frozen { "1" } else { "0" }).unwrap();
        let wanted = format!("frozen {}", u8::from(frozen));
        eventually(&wanted, || {
            let now = fs::read_to_string(cgroup.join("cgroup.events")).unwrap();
            now.contains(&wanted).then_some(())
        });
    }
}

pub fn is_frozen(cgroup: &Path) -> bool {
    match fs::read_to_string(cgroup.join("freezer.state")) {
        Ok(state) => state.trim() == "FROZEN",
        Err(_) => fs::read_to_string(cgroup.join("cgroup.events"))
            .unwrap()
            .contains("frozen 1"),
    }
}

/// A running container; dropping it removes every trace.
pub struct Container {
    pub place: Place,
    pub pid: i32,
}

impl Container {
    pub fn is_alive(&self) -> bool {
        fs::read_to_string(format!("/proc/{}/stat", self.pid))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
    }

    /// A file of the container, as it sees it.
    pub fn read(&self, path: &str) -> String {
        let path = format!("/proc/{}/root{path}", self.pid);
        fs::read_to_string(&path).unwrap_or_default()
    }

    /// Waits until the number in a file of the container has grown.
    pub fn wait_for_progress(&self, path: &str) -> u64 {
        let number = || self.read(path).trim().parse::<u64>().unwrap_or(0);
        let before = number();
        eventually("progress", || (number() > before).then(number))
    }

    pub fn exec(&self, command: &str) -> String {
        run(Command::new("nsenter")
            .args(["-t", &self.pid.to_string(), "-m", "-u", "-i", "-n", "-p"])
            .args(["/bin/sh", "-c", command]))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::write(self.freezer().join("freezer.state"), "THAWED");
        let _ = fs::write(self.freezer().join("cgroup.freeze"), "0");
        for procs in self.cgroup_procs() {
            for _ in 0..500 {
                let text = fs::read_to_string(&procs).unwrap_or_default();
                let pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
                for pid in &pids {
                    let pid = rustix::process::Pid::from_raw(*pid).unwrap();
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                    let options = rustix::process::WaitOptions::NOHANG;
                    let _ = rustix::process::waitpid(Some(pid), options);
                }
                let directory = procs.parent().unwrap();
                let _ = fs::write(directory.join("freezer.state"), "THAWED");
                if pids.is_empty() && fs::remove_dir(directory).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        let _ = Command::new("runc")
            .args(["delete", "--force", &self.id])
            .output();
        let _ = Command::new("umount").arg("-l").arg(self.rootfs()).output();
        let _ = fs::remove_dir_all(&self.base);
    }
}

/// Reads from a pipe until `wanted` has come.
pub fn read_until(pipe: impl AsFd, wanted: &str) -> String {
    let mut file = fs::File::from(pipe.as_fd().try_clone_to_owned().unwrap());
    let mut text = String::new();
    let mut buffer = [0u8; 4096];
    while !text.contains(wanted) {
        let mut ready = [rustix::event::PollFd::new(
            &file,
            rustix::event::PollFlags::IN,
        )];
        let limit = rustix::time::Timespec {
            tv_sec: 10,
            tv_nsec: 0,
        };
        let count = rustix::event::poll(&mut ready, Some(&limit)).unwrap();
        assert!(count > 0, "waited in vain for {wanted:?}, after {text:?}");
        let count = file.read(&mut buffer).unwrap_or(0);
        assert!(count > 0, "end of file before {wanted:?}, after {text:?}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    text
}

/// A tmpfs that goes away with this value.
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    pub fn new(path: &Path, options: &str) -> Tmpfs {
        run(Command::new("mount")
            .args(["-t", "tmpfs", "tmpfs", "-o", options])
            .arg(path));
        Tmpfs(path.to_owned())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}
