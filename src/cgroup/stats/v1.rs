//! `io.containerd.cgroups.v1.Metrics` from v1 files.

use std::collections::HashMap;
use std::path::Path;

use containerd_shim::protos::cgroups::metrics::{
    BlkIOEntry, BlkIOStat, CPUStat, CPUUsage, HugetlbStat, MemoryEntry, MemoryOomControl,
    MemoryStat, Metrics, PidsStat, Throttle,
};

use crate::cgroup::file::{flat_keyed, number, text};
use crate::cgroup::paths::Cgroup;

/// A clock tick in `cpuacct.stat`: USER_HZ is 100 on every architecture we build for.
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

/// The BFQ names of recursive counters, tried before the throttling layer's.
const RECURSIVE: [(&str, BlkioField); 8] = [
    ("sectors_recursive", |s| &mut s.sectors_recursive),
    ("io_service_bytes_recursive", |s| {
        &mut s.io_service_bytes_recursive
    }),
    ("io_serviced_recursive", |s| &mut s.io_serviced_recursive),
    ("io_queued_recursive", |s| &mut s.io_queued_recursive),
    ("io_service_time_recursive", |s| {
        &mut s.io_service_time_recursive
    }),
    ("io_wait_time_recursive", |s| &mut s.io_wait_time_recursive),
    ("io_merged_recursive", |s| &mut s.io_merged_recursive),
    ("time_recursive", |s| &mut s.io_time_recursive),
];
const THROTTLE: [(&str, BlkioField); 2] = [
    ("throttle.io_serviced", |s| &mut s.io_serviced_recursive),
    ("throttle.io_service_bytes", |s| {
        &mut s.io_service_bytes_recursive
    }),
];

type BlkioField = fn(&mut BlkIOStat) -> &mut Vec<BlkIOEntry>;

/// Device names by (major, minor).
type Devices = HashMap<(u64, u64), String>;

pub(super) fn metrics(cgroup: &Cgroup) -> Metrics {
    // The table of usage and throttling is always there: `ctr` prints it unasked.
    let mut metrics = Metrics {
        cpu: Some(CPUStat {
            usage: Some(cgroup.dir("cpuacct").map(cpu_usage).unwrap_or_default()).into(),
            throttling: Some(cgroup.dir("cpu").map(throttling).unwrap_or_default()).into(),
            ..CPUStat::default()
        })
        .into(),
        ..Metrics::default()
    };
    if let Some(dir) = cgroup.dir("pids") {
        metrics.pids = Some(pids(dir)).into();
    }
    if let Some(dir) = cgroup.dir("memory") {
        metrics.memory = memory(dir).into();
        metrics.memory_oom_control = oom_control(dir).into();
    }
    if let Some(dir) = cgroup.dir("blkio") {
        metrics.blkio = Some(blkio(dir)).into();
    }
    if let Some(dir) = cgroup.dir("hugetlb") {
        metrics.hugetlb = hugetlb(dir);
    }
    metrics
}

fn pids(dir: &Path) -> PidsStat {
    PidsStat {
        current: number(&dir.join("pids.current"), 0),
        limit: number(&dir.join("pids.max"), 0),
        ..PidsStat::default()
    }
}

fn cpu_usage(dir: &Path) -> CPUUsage {
    let ticks = flat_keyed(&dir.join("cpuacct.stat")).unwrap_or_default();
    let nanoseconds = |key| ticks.get(key).copied().unwrap_or(0) * NANOSECONDS_PER_TICK;
    let per_cpu = text(&dir.join("cpuacct.usage_percpu")).unwrap_or_default();
    CPUUsage {
        total: number(&dir.join("cpuacct.usage"), 0),
        user: nanoseconds("user"),
        kernel: nanoseconds("system"),
        per_cpu: per_cpu
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect(),
        ..CPUUsage::default()
    }
}

fn throttling(dir: &Path) -> Throttle {
    let stat = flat_keyed(&dir.join("cpu.stat")).unwrap_or_default();
    let get = |key| stat.get(key).copied().unwrap_or(0);
    Throttle {
        periods: get("nr_periods"),
        throttled_periods: get("nr_throttled"),
        throttled_time: get("throttled_time"),
        ..Throttle::default()
    }
}

fn memory(dir: &Path) -> Option<MemoryStat> {
    let stat = flat_keyed(&dir.join("memory.stat"))?;
    let get = |key| stat.get(key).copied().unwrap_or(0);
    Some(MemoryStat {
        cache: get("cache"),
        rss: get("rss"),
        rss_huge: get("rss_huge"),
        mapped_file: get("mapped_file"),
        dirty: get("dirty"),
        writeback: get("writeback"),
        pg_pg_in: get("pgpgin"),
        pg_pg_out: get("pgpgout"),
        pg_fault: get("pgfault"),
        pg_maj_fault: get("pgmajfault"),
        inactive_anon: get("inactive_anon"),
        active_anon: get("active_anon"),
        inactive_file: get("inactive_file"),
        active_file: get("active_file"),
        unevictable: get("unevictable"),
        hierarchical_memory_limit: get("hierarchical_memory_limit"),
        hierarchical_swap_limit: get("hierarchical_memsw_limit"),
        total_cache: get("total_cache"),
        total_rss: get("total_rss"),
        total_rss_huge: get("total_rss_huge"),
        total_mapped_file: get("total_mapped_file"),
        total_dirty: get("total_dirty"),
        total_writeback: get("total_writeback"),
        total_pg_pg_in: get("total_pgpgin"),
        total_pg_pg_out: get("total_pgpgout"),
        total_pg_fault: get("total_pgfault"),
        total_pg_maj_fault: get("total_pgmajfault"),
        total_inactive_anon: get("total_inactive_anon"),
        total_active_anon: get("total_active_anon"),
        total_inactive_file: get("total_inactive_file"),
        total_active_file: get("total_active_file"),
        total_unevictable: get("total_unevictable"),
        usage: Some(memory_entry(dir, "memory")).into(),
        swap: Some(memory_entry(dir, "memory.memsw")).into(),
        kernel: Some(memory_entry(dir, "memory.kmem")).into(),
        kernel_tcp: Some(memory_entry(dir, "memory.kmem.tcp")).into(),
        ..MemoryStat::default()
    })
}

fn memory_entry(dir: &Path, prefix: &str) -> MemoryEntry {
    let get = |name: &str| number(&dir.join(format!("{prefix}.{name}")), 0);
    MemoryEntry {
        limit: get("limit_in_bytes"),
        usage: get("usage_in_bytes"),
        max: get("max_usage_in_bytes"),
        failcnt: get("failcnt"),
        ..MemoryEntry::default()
    }
}

fn oom_control(dir: &Path) -> Option<MemoryOomControl> {
    let control = flat_keyed(&dir.join("memory.oom_control"))?;
    let get = |key| control.get(key).copied().unwrap_or(0);
    Some(MemoryOomControl {
        oom_kill_disable: get("oom_kill_disable"),
        under_oom: get("under_oom"),
        oom_kill: get("oom_kill"),
        ..MemoryOomControl::default()
    })
}

fn hugetlb(dir: &Path) -> Vec<HugetlbStat> {
    super::huge_page_sizes()
        .into_iter()
        .map(|pagesize| {
            let get = |name: &str| number(&dir.join(format!("hugetlb.{pagesize}.{name}")), 0);
            HugetlbStat {
                usage: get("usage_in_bytes"),
                max: get("max_usage_in_bytes"),
                failcnt: get("failcnt"),
                pagesize: pagesize.clone(),
                ..HugetlbStat::default()
            }
        })
        .collect()
}

/// The scheduler's recursive counters where it keeps any, else the throttling layer's.
fn blkio(dir: &Path) -> BlkIOStat {
    let devices = text(Path::new("/proc/partitions")).map_or_else(Devices::new, |t| partitions(&t));
    let mut stat = BlkIOStat::default();
    let mut found = false;
    for (name, field) in RECURSIVE {
        let entries = blkio_file(&dir.join(format!("blkio.{name}")), &devices);
        found |= !entries.is_empty();
        *field(&mut stat) = entries;
    }
    if !found {
        for (name, field) in THROTTLE {
            *field(&mut stat) = blkio_file(&dir.join(format!("blkio.{name}")), &devices);
        }
    }
    stat
}

fn blkio_file(path: &Path, devices: &Devices) -> Vec<BlkIOEntry> {
    text(path)
        .unwrap_or_default()
        .lines()
        .filter_map(|line| blkio_line(line, devices))
        .collect()
}

/// `8:0 Read 4096` or `8:0 12`; the closing `Total 4096` is no device.
fn blkio_line(line: &str, devices: &Devices) -> Option<BlkIOEntry> {
    let (device, rest) = line.split_once(' ')?;
    let (major, minor) = device.split_once(':')?;
    let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
    let (op, value) = rest.split_once(' ').unwrap_or(("", rest));
    Some(BlkIOEntry {
        op: op.to_owned(),
        device: devices.get(&(major, minor)).cloned().unwrap_or_default(),
        major,
        minor,
        value: value.trim().parse().ok()?,
        ..BlkIOEntry::default()
    })
}

/// `/proc/partitions`: two lines of head, then `major minor blocks name`.
fn partitions(text: &str) -> Devices {
    let mut devices = Devices::new();
    for line in text.lines().skip(2) {
        let words: Vec<_> = line.split_whitespace().collect();
        if let [major, minor, _, name] = words[..]
            && let (Ok(major), Ok(minor)) = (major.parse(), minor.parse())
        {
            devices
                .entry((major, minor))
                .or_insert_with(|| format!("/dev/{name}"));
        }
    }
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blkio_lines() {
        let devices = partitions("major minor  #blocks  name\n\n   8        0   1024 sda\n");
        let entry = blkio_line("8:0 Read 4096", &devices).unwrap();
        assert_eq!(
            (&*entry.op, &*entry.device, entry.value),
            ("Read", "/dev/sda", 4096)
        );
        let entry = blkio_line("254:16 7", &devices).unwrap();
        assert_eq!(
            (&*entry.op, &*entry.device, entry.major, entry.value),
            ("", "", 254, 7)
        );
        assert!(blkio_line("Total 4096", &devices).is_none());
        assert!(blkio_line("8:0 Read", &devices).is_none());
    }
}
