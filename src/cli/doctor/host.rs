//! The host itself: privilege, kernel, disks.

use std::os::unix::fs::FileExt;
use std::path::Path;

use super::Check;
use super::daemon::Home;

/// The oldest kernel: pidfds, time namespaces, restoring pids without races,
/// and the oldest long-term kernel still maintained.
const OLDEST_KERNEL: (u32, u32) = (5, 10);

const GIB: u64 = 1 << 30;
/// Less room than this fails: not even a small container's memory fits.
const DISK_NEEDED: u64 = GIB / 4;
/// Less room than this warns: a checkpoint needs about three times the container's memory.
const DISK_WANTED: u64 = 2 * GIB;

pub(super) fn root() -> Check {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        Check::ok("root", "running as root")
    } else {
        Check::fail(
            "root",
            format!("running as uid {}", uid.as_raw()),
            "run `sudo world doctor`; several checks below fail without root",
        )
    }
}

pub(super) fn kernel() -> Check {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let found = format!("Linux {release} {}", uname.machine().to_string_lossy());
    let (major, minor) = OLDEST_KERNEL;
    match version_of(&release) {
        Some(version) if version >= OLDEST_KERNEL => Check::ok("kernel", found),
        _ => Check::fail(
            "kernel",
            found,
            format!("boot Linux {major}.{minor} or newer"),
        ),
    }
}

/// The first two numbers of a version like `6.12.9-cloud` or `v2.3.7`.
pub(super) fn version_of(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text
        .trim_start_matches('v')
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

pub(super) fn kernel_features() -> Vec<Check> {
    vec![
        pidfd(),
        time_namespace(),
        seccomp(),
        userfaultfd(),
        soft_dirty(),
    ]
}

fn pidfd() -> Check {
    use rustix::process::{PidfdFlags, getpid, pidfd_open};
    match pidfd_open(getpid(), PidfdFlags::empty()) {
        Ok(_) => Check::ok("pidfd", "available"),
        Err(error) => Check::fail(
            "pidfd",
            format!("pidfd_open: {error}"),
            "boot Linux 5.3 or newer, and allow pidfd_open in the seccomp profile around this shell",
        ),
    }
}

fn time_namespace() -> Check {
    if Path::new("/proc/self/ns/time").exists() {
        Check::ok("time-namespace", "available")
    } else {
        Check::warn(
            "time-namespace",
            "not available: after a restore on another boot, monotonic clocks jump",
            "use a kernel with CONFIG_TIME_NS=y",
        )
    }
}

fn seccomp() -> Check {
    match std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(actions) => Check::ok("seccomp", format!("actions: {}", actions.trim())),
        Err(_) => Check::fail(
            "seccomp",
            "the kernel has no seccomp filters: a container's profile cannot be applied",
            "use a kernel with CONFIG_SECCOMP_FILTER=y",
        ),
    }
}

fn userfaultfd() -> Check {
    if Path::new("/proc/sys/vm/unprivileged_userfaultfd").exists() {
        Check::ok("userfaultfd", "available")
    } else {
        Check::warn(
            "userfaultfd",
            "not available: memory cannot be restored on demand",
            "use a kernel with CONFIG_USERFAULTFD=y",
        )
    }
}

fn soft_dirty() -> Check {
    if fresh_page_is_soft_dirty().unwrap_or(false) {
        Check::ok("soft-dirty", "available")
    } else {
        Check::warn(
            "soft-dirty",
            "not available: memory cannot be dumped in rounds while the container runs",
            "use a kernel with CONFIG_MEM_SOFT_DIRTY=y (needed for pre-dump only)",
        )
    }
}

/// A page just written is soft-dirty where the kernel tracks that at all.
/// Format of `/proc/PID/pagemap`: `Documentation/admin-guide/mm/pagemap.rst`, bit 55.
fn fresh_page_is_soft_dirty() -> std::io::Result<bool> {
    let page_size = rustix::param::page_size();
    let page = std::hint::black_box(vec![1_u8; 2 * page_size]);
    let index = page[page_size..].as_ptr() as usize / page_size;
    let mut entry = [0; 8];
    std::fs::File::open("/proc/self/pagemap")?.read_exact_at(&mut entry, index as u64 * 8)?;
    Ok(u64::from_ne_bytes(entry) & (1 << 55) != 0)
}

/// Room where containerd keeps images and snapshots, and where it unpacks checkpoints.
pub(super) fn disks(home: &Home) -> Vec<Check> {
    let temporary = std::env::temp_dir();
    vec![
        disk("disk-containerd", &home.root),
        disk("disk-temporary", &temporary),
    ]
}

fn disk(name: &'static str, path: &Path) -> Check {
    // What does not exist yet will be made on the disk of what is above it.
    let Some(existing) = path.ancestors().find(|path| path.exists()) else {
        return Check::warn(name, format!("{} not found", path.display()), "make it");
    };
    let stat = match rustix::fs::statvfs(existing) {
        Ok(stat) => stat,
        Err(error) => {
            return Check::warn(
                name,
                format!("{}: {error}", existing.display()),
                "make it readable",
            );
        }
    };
    let free = stat.f_bavail * stat.f_frsize;
    let found = format!("{} free at {}", human_size(free), existing.display());
    let fix = format!(
        "make room: a checkpoint takes up to three times the container's memory; {} is a fair start",
        human_size(DISK_WANTED)
    );
    match free {
        free if free < DISK_NEEDED => Check::fail(name, found, fix),
        free if free < DISK_WANTED => Check::warn(name, found, fix),
        _ => Check::ok(name, found),
    }
}

fn human_size(bytes: u64) -> String {
    match bytes {
        b if b >= GIB => format!("{:.1} GiB", b as f64 / GIB as f64),
        b => format!("{} MiB", b >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(version_of("6.12.9+deb13-cloud-amd64"), Some((6, 12)));
        assert_eq!(version_of("v2.3.7"), Some((2, 3)));
        assert_eq!(version_of("4.1.1"), Some((4, 1)));
        assert_eq!(version_of("2"), None);
        assert_eq!(version_of("unknown"), None);
    }

    #[test]
    fn sizes() {
        assert_eq!(human_size(3 * GIB / 2), "1.5 GiB");
        assert_eq!(human_size(300 << 20), "300 MiB");
    }
}
