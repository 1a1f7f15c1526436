//! A cgroup's counters in containerd's own message, one for each cgroup version,
//! with the fields that the runc shim fills (containerd/cgroups v3 `Stat`).
//!
//! What the kernel does not offer stays zero or absent: on v1 the part of a
//! controller that is not mounted is absent, on v2 every part is there.

mod v1;
mod v2;

use containerd_shim::protos::protobuf::Message;
use containerd_shim::protos::protobuf::well_known_types::any::Any;

use super::layout::Mode;
use super::paths::Cgroup;
use crate::error::{Error, ErrorKind, Result};

/// The names containerd knows the messages by (typeurl: no host part before them).
const V1_TYPE: &str = "io.containerd.cgroups.v1.Metrics";
const V2_TYPE: &str = "io.containerd.cgroups.v2.Metrics";

impl Cgroup {
    /// The counters now, as `io.containerd.cgroups.v1.Metrics` or `…v2.Metrics`.
    ///
    /// v1 gives CPU times in nanoseconds, v2 in microseconds; sizes are bytes.
    /// Fails with [`ErrorKind::NotFound`] when the cgroup is gone.
    pub fn stats(&self) -> Result<Any> {
        if !self.exists() {
            return Err(self.gone());
        }
        match self.mode {
            Mode::V1 => packed(V1_TYPE, &v1::metrics(self)),
            Mode::V2 => packed(V2_TYPE, &v2::metrics(self)),
        }
    }
}

fn packed(type_url: &str, message: &impl Message) -> Result<Any> {
    let value = message
        .write_to_bytes()
        .map_err(|error| Error::caused_by(ErrorKind::Internal, "encode metrics", error))?;
    Ok(Any {
        type_url: type_url.to_owned(),
        value,
        ..Any::default()
    })
}

/// The huge page sizes of this kernel as cgroup files name them: `2MB`, `1GB`.
fn huge_page_sizes() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/sys/kernel/mm/hugepages") else {
        return Vec::new();
    };
    let mut sizes: Vec<u64> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let kib = name
                .to_str()?
                .strip_prefix("hugepages-")?
                .strip_suffix("kB")?;
            kib.parse().ok()
        })
        .collect();
    sizes.sort_unstable();
    sizes.into_iter().map(size_name).collect()
}

/// KiB to the largest unit that divides it.
fn size_name(kib: u64) -> String {
    match kib {
        k if k >= 1 << 20 && k.is_multiple_of(1 << 20) => format!("{}GB", k >> 20),
        k if k >= 1 << 10 && k.is_multiple_of(1 << 10) => format!("{}MB", k >> 10),
        k => format!("{k}KB"),
    }
}

/// One line of `rdma.current` or `rdma.max`: device, handles, objects.
fn rdma_line(line: &str) -> Option<(String, u32, u32)> {
    let mut words = line.split_whitespace();
    let device = words.next()?.to_owned();
    let (mut handles, mut objects) = (0, 0);
    for word in words {
        let (key, value) = word.split_once('=')?;
        let value = match value {
            "max" => u32::MAX,
            digits => digits.parse().ok()?,
        };
        match key {
            "hca_handle" => handles = value,
            "hca_object" => objects = value,
            _ => {}
        }
    }
    Some((device, handles, objects))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_named_like_cgroup_files() {
        assert_eq!(size_name(64), "64KB");
        assert_eq!(size_name(2048), "2MB");
        assert_eq!(size_name(1 << 20), "1GB");
        assert_eq!(size_name(16 << 20), "16GB");
    }

    #[test]
    fn rdma_lines() {
        let line = rdma_line("mlx4_0 hca_handle=2 hca_object=max");
        assert_eq!(line, Some(("mlx4_0".to_owned(), 2, u32::MAX)));
        assert_eq!(rdma_line(""), None);
        assert_eq!(rdma_line("mlx4_0 nonsense"), None);
    }
}
