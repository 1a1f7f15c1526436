//! `io.containerd.cgroups.v2.Metrics` from v2 files. An unlimited limit is `u64::MAX`.

use std::path::Path;

use containerd_shim::protos::cgroups_v2::metrics::{
    CPUStat, HugeTlbStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, PSIData, PSIStats,
    PidsStat, RdmaEntry, RdmaStat,
};

use crate::cgroup::file::{flat_keyed, number, text};
use crate::cgroup::paths::Cgroup;

const UNLIMITED: u64 = u64::MAX;

pub(super) fn metrics(cgroup: &Cgroup) -> Metrics {
    let Some(dir) = cgroup.dirs.first().map(|dir| &*dir.path) else {
        return Metrics::default();
    };
    Metrics {
        pids: Some(pids(dir)).into(),
        cpu: Some(cpu(dir)).into(),
        memory: Some(memory(dir)).into(),
        memory_events: memory_events(dir).into(),
        io: Some(io(dir)).into(),
        rdma: Some(rdma(dir)).into(),
        hugetlb: hugetlb(dir),
        ..Metrics::default()
    }
}

fn pids(dir: &Path) -> PidsStat {
    PidsStat {
        current: number(&dir.join("pids.current"), UNLIMITED),
        limit: number(&dir.join("pids.max"), UNLIMITED),
        ..PidsStat::default()
    }
}

fn cpu(dir: &Path) -> CPUStat {
    let Some(stat) = flat_keyed(&dir.join("cpu.stat")) else {
        return CPUStat::default();
    };
    let get = |key| stat.get(key).copied().unwrap_or(0);
    CPUStat {
        usage_usec: get("usage_usec"),
        user_usec: get("user_usec"),
        system_usec: get("system_usec"),
        nr_periods: get("nr_periods"),
        nr_throttled: get("nr_throttled"),
        throttled_usec: get("throttled_usec"),
        nr_bursts: get("nr_bursts"),
        burst_usec: get("burst_usec"),
        psi: pressure(&dir.join("cpu.pressure")).into(),
        ..CPUStat::default()
    }
}

fn memory(dir: &Path) -> MemoryStat {
    let Some(stat) = flat_keyed(&dir.join("memory.stat")) else {
        return MemoryStat::default();
    };
    let get = |key| stat.get(key).copied().unwrap_or(0);
    let file = |name: &str| number(&dir.join(name), UNLIMITED);
    MemoryStat {
        anon: get("anon"),
        file: get("file"),
        kernel_stack: get("kernel_stack"),
        slab: get("slab"),
        sock: get("sock"),
        shmem: get("shmem"),
        file_mapped: get("file_mapped"),
        file_dirty: get("file_dirty"),
        file_writeback: get("file_writeback"),
        anon_thp: get("anon_thp"),
        inactive_anon: get("inactive_anon"),
        active_anon: get("active_anon"),
        inactive_file: get("inactive_file"),
        active_file: get("active_file"),
        unevictable: get("unevictable"),
        slab_reclaimable: get("slab_reclaimable"),
        slab_unreclaimable: get("slab_unreclaimable"),
        pgfault: get("pgfault"),
        pgmajfault: get("pgmajfault"),
        workingset_refault: get("workingset_refault"),
        workingset_activate: get("workingset_activate"),
        workingset_nodereclaim: get("workingset_nodereclaim"),
        pgrefill: get("pgrefill"),
        pgscan: get("pgscan"),
        pgsteal: get("pgsteal"),
        pgactivate: get("pgactivate"),
        pgdeactivate: get("pgdeactivate"),
        pglazyfree: get("pglazyfree"),
        pglazyfreed: get("pglazyfreed"),
        thp_fault_alloc: get("thp_fault_alloc"),
        thp_collapse_alloc: get("thp_collapse_alloc"),
        usage: file("memory.current"),
        usage_limit: file("memory.max"),
        max_usage: file("memory.peak"),
        swap_usage: file("memory.swap.current"),
        swap_limit: file("memory.swap.max"),
        swap_max_usage: file("memory.swap.peak"),
        psi: pressure(&dir.join("memory.pressure")).into(),
        ..MemoryStat::default()
    }
}

fn memory_events(dir: &Path) -> Option<MemoryEvents> {
    let events = flat_keyed(&dir.join("memory.events"))?;
    let get = |key| events.get(key).copied().unwrap_or(0);
    Some(MemoryEvents {
        low: get("low"),
        high: get("high"),
        max: get("max"),
        oom: get("oom"),
        oom_kill: get("oom_kill"),
        oom_group_kill: get("oom_group_kill"),
        ..MemoryEvents::default()
    })
}

fn io(dir: &Path) -> IOStat {
    let stat = text(&dir.join("io.stat")).unwrap_or_default();
    IOStat {
        usage: stat.lines().filter_map(io_line).collect(),
        psi: pressure(&dir.join("io.pressure")).into(),
        ..IOStat::default()
    }
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`; a line without counters is left out.
fn io_line(line: &str) -> Option<IOEntry> {
    let (device, counters) = line.split_once(' ')?;
    let (major, minor) = device.split_once(':')?;
    let mut entry = IOEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        ..IOEntry::default()
    };
    for word in counters.split_whitespace() {
        let Some((key, value)) = word.split_once('=') else {
            continue;
        };
        let field = match key {
            "rbytes" => &mut entry.rbytes,
            "wbytes" => &mut entry.wbytes,
            "rios" => &mut entry.rios,
            "wios" => &mut entry.wios,
            _ => continue,
        };
        *field = value.parse().unwrap_or(0);
    }
    Some(entry)
}

fn rdma(dir: &Path) -> RdmaStat {
    let entries = |name: &str| -> Vec<RdmaEntry> {
        text(&dir.join(name))
            .unwrap_or_default()
            .lines()
            .filter_map(super::rdma_line)
            .map(|(device, hca_handles, hca_objects)| RdmaEntry {
                device,
                hca_handles,
                hca_objects,
                ..RdmaEntry::default()
            })
            .collect()
    };
    RdmaStat {
        current: entries("rdma.current"),
        limit: entries("rdma.max"),
        ..RdmaStat::default()
    }
}

fn hugetlb(dir: &Path) -> Vec<HugeTlbStat> {
    super::huge_page_sizes()
        .into_iter()
        .map(|pagesize| {
            let file = |name: &str| dir.join(format!("hugetlb.{pagesize}.{name}"));
            let events = flat_keyed(&file("events")).unwrap_or_default();
            HugeTlbStat {
                current: number(&file("current"), UNLIMITED),
                max: number(&file("max"), UNLIMITED),
                failcnt: events.get("max").copied().unwrap_or(0),
                pagesize: pagesize.clone(),
                ..HugeTlbStat::default()
            }
        })
        .collect()
}

/// A pressure file; absent or unreadable (EOPNOTSUPP) where the kernel keeps none.
fn pressure(path: &Path) -> Option<PSIStats> {
    text(path).map(|text| parse_pressure(&text))
}

fn parse_pressure(text: &str) -> PSIStats {
    let mut stats = PSIStats::default();
    for line in text.lines() {
        let (kind, values) = line.split_once(' ').unwrap_or((line, ""));
        match kind {
            "some" => stats.some = Some(pressure_data(values)).into(),
            "full" => stats.full = Some(pressure_data(values)).into(),
            _ => {}
        }
    }
    stats
}

/// `avg10=0.00 avg60=0.00 avg300=0.00 total=0`: shares in percent, total in microseconds.
fn pressure_data(values: &str) -> PSIData {
    let mut data = PSIData::default();
    for word in values.split_whitespace() {
        match word.split_once('=') {
            Some(("avg10", value)) => data.avg10 = value.parse().unwrap_or(0.0),
            Some(("avg60", value)) => data.avg60 = value.parse().unwrap_or(0.0),
            Some(("avg300", value)) => data.avg300 = value.parse().unwrap_or(0.0),
            Some(("total", value)) => data.total = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_lines() {
        let entry = io_line("259:1 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6").unwrap();
        assert_eq!((entry.major, entry.minor), (259, 1));
        assert_eq!(
            (entry.rbytes, entry.wbytes, entry.rios, entry.wios),
            (1, 2, 3, 4)
        );
        assert!(io_line("").is_none());
        assert!(io_line("259:1").is_none());
        assert!(io_line("x:1 rbytes=1").is_none());
    }

    #[test]
    fn pressure_lines() {
        let stats = parse_pressure(
            "some avg10=1.50 avg60=0.25 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n",
        );
        assert_eq!((stats.some.avg10, stats.some.total), (1.5, 12));
        assert_eq!(stats.full.total, 3);
        assert!(parse_pressure("").some.is_none());
    }
}
