//! What the host is on which a world was made or shall run.

use std::collections::BTreeSet;

use rustix::fs::statfs;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::error::IoContext;

/// How the host's control groups are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupMode {
    /// Controllers on cgroup v1 only.
    V1,
    /// Controllers on cgroup v1, systemd's own tree on v2.
    Hybrid,
    /// Everything on cgroup v2.
    V2,
}

/// Facts about a host that decide whether a world fits it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostFacts {
    /// Machine as `uname -m` says it, for example `x86_64`.
    pub arch: String,
    /// How control groups are mounted.
    pub cgroup: CgroupMode,
    /// All feature flags of the first CPU (`flags` or `Features` in `/proc/cpuinfo`).
    pub cpu_features: BTreeSet<String>,
    /// CPU model for people.
    pub cpu_model: String,
    /// CPU vendor for people.
    pub cpu_vendor: String,
    /// CRIU's version, for example `4.1.1`; none where there is no CRIU.
    pub criu: Option<String>,
    /// Kernel release as `uname -r` says it.
    pub kernel: String,
    /// Version of worldshim that gathered these facts.
    pub worldshim: String,
}

impl HostFacts {
    /// Gathers the facts of this host from `uname`, `/proc/cpuinfo` and `/sys/fs/cgroup`.
    /// `criu` is the version of the CRIU in use, as its driver found it.
    pub fn gather(criu: Option<&str>) -> Result<HostFacts> {
        let uname = rustix::system::uname();
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").context(|| "read /proc/cpuinfo")?;
        let field = |names: &[&str]| cpu_field(&cpuinfo, names).unwrap_or_default();
        Ok(HostFacts {
            arch: uname.machine().to_string_lossy().into_owned(),
            cgroup: cgroup_mode()?,
            cpu_features: field(&["flags", "Features"])
                .split_whitespace()
                .map(String::from)
                .collect(),
            cpu_model: field(&["model name", "CPU part"]).to_string(),
            cpu_vendor: field(&["vendor_id", "CPU implementer"]).to_string(),
            criu: criu.map(String::from),
            kernel: uname.release().to_string_lossy().into_owned(),
            worldshim: env!("CARGO_PKG_VERSION").to_string(),
        })
    }

    /// Flags that programs on `world` may have come to rely on and this host lacks.
    ///
    /// Programs choose their code paths at start (an `AVX-512` memcpy, say); on a CPU
    /// without the instructions they die of SIGILL long after the restore. Flags that only
    /// the kernel uses do not count.
    pub fn missing_cpu_features<'w>(&self, world: &'w HostFacts) -> Vec<&'w str> {
        world
            .cpu_features
            .iter()
            .map(String::as_str)
            .filter(|flag| user_visible(&world.arch, flag) && !self.cpu_features.contains(*flag))
            .collect()
    }
}

/// First `name : value` line with one of the names.
fn cpu_field<'a>(cpuinfo: &'a str, names: &[&str]) -> Option<&'a str> {
    cpuinfo.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        names.contains(&name.trim()).then_some(value.trim())
    })
}

/// File system type of cgroup v2 in `statfs` (linux/magic.h).
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;

fn cgroup_mode() -> Result<CgroupMode> {
    let is_v2 = |path: &str| {
        statfs(path)
            .map(|fs| fs.f_type == CGROUP2_SUPER_MAGIC)
            .unwrap_or(false)
    };
    statfs("/sys/fs/cgroup").context(|| "look at /sys/fs/cgroup (is it mounted?)")?;
    Ok(if is_v2("/sys/fs/cgroup") {
        CgroupMode::V2
    } else if is_v2("/sys/fs/cgroup/unified") {
        CgroupMode::Hybrid
    } else {
        CgroupMode::V1
    })
}

/// Whether a program can see and use the feature without the kernel's doing.
fn user_visible(arch: &str, flag: &str) -> bool {
    if arch != "x86_64" {
        // Elsewhere the kernel lists only what programs may use (the HWCAPs).
        return true;
    }
    const FAMILIES: [&str; 5] = ["avx", "amx_", "sse", "xsave", "sha"];
    FAMILIES.iter().any(|family| flag.starts_with(family)) || X86_USER_FLAGS.contains(&flag)
}

/// Flags of `/proc/cpuinfo` on x86 that stand for instructions or state of user mode,
/// beside the families by prefix.
const X86_USER_FLAGS: [&str; 54] = [
    "3dnow",
    "3dnowext",
    "3dnowprefetch",
    "abm",
    "adx",
    "aes",
    "bmi1",
    "bmi2",
    "cldemote",
    "clflush",
    "clflushopt",
    "clwb",
    "clzero",
    "cmov",
    "cx16",
    "cx8",
    "enqcmd",
    "erms",
    "f16c",
    "fma",
    "fma4",
    "fpu",
    "fsgsbase",
    "fsrm",
    "fxsr",
    "fxsr_opt",
    "gfni",
    "lahf_lm",
    "lwp",
    "mmx",
    "mmxext",
    "movbe",
    "movdir64b",
    "movdiri",
    "mpx",
    "mwaitx",
    "ospke",
    "pclmulqdq",
    "pku",
    "pni",
    "popcnt",
    "rdpid",
    "rdrand",
    "rdseed",
    "rdtscp",
    "rtm",
    "serialize",
    "ssse3",
    "tbm",
    "tsc",
    "user_shstk",
    "vaes",
    "vpclmulqdq",
    "waitpkg",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_facts_and_lacks_nothing_of_itself() {
        let host = HostFacts::gather(Some("4.1.1")).unwrap();
        assert!(!host.arch.is_empty() && !host.kernel.is_empty());
        assert!(!host.cpu_features.is_empty());
        assert!(host.missing_cpu_features(&host).is_empty());
    }

    #[test]
    fn only_what_programs_use_counts() {
        let mut here = HostFacts::gather(None).unwrap();
        here.arch = "x86_64".into();
        let mut world = here.clone();
        here.cpu_features = ["sse2"].map(String::from).into();
        world.cpu_features = ["sse2", "avx512f", "smep", "hypervisor", "vpclmulqdq"]
            .map(String::from)
            .into();
        assert_eq!(here.missing_cpu_features(&world), ["avx512f", "vpclmulqdq"]);
    }
}
