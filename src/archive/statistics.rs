//! CRIU's `stats-dump`, as far as a world tells what is in it: checkpointctl wants it.
//!
//! The world keeps no statistics of CRIU's. What it does not tell is 0.

use prost::Message;

use crate::memory::PAGE_SIZE;
use crate::memory::images::is_pages;
use crate::world::manifest::{Manifest, PartKind};

/// An image about a dump itself, and one of statistics.
const MAGIC: [u32; 2] = [0x5510_5940, 0x5709_3306];

/// CRIU's `stats_entry`.
#[derive(Clone, PartialEq, Message)]
struct Statistics {
    #[prost(message, optional, tag = "1")]
    dump: Option<DumpStatistics>,
}

/// CRIU's `dump_stats_entry`: times in microseconds.
#[derive(Clone, PartialEq, Message)]
struct DumpStatistics {
    #[prost(uint32, required, tag = "1")]
    freezing_time: u32,
    #[prost(uint32, required, tag = "2")]
    frozen_time: u32,
    #[prost(uint32, required, tag = "3")]
    memdump_time: u32,
    #[prost(uint32, required, tag = "4")]
    memwrite_time: u32,
    #[prost(uint64, required, tag = "5")]
    pages_scanned: u64,
    #[prost(uint64, required, tag = "6")]
    pages_skipped_parent: u64,
    #[prost(uint64, required, tag = "7")]
    pages_written: u64,
    #[prost(uint64, required, tag = "9")]
    pages_lazy: u64,
}

/// The file's bytes.
pub(super) fn stats_dump(manifest: &Manifest) -> Vec<u8> {
    let files = manifest.part(PartKind::Processes);
    let pages = files.iter().flat_map(|part| &part.files);
    let pages = pages.filter(|file| is_pages(file.name.as_str()));
    let micros = |nanos: u64| u32::try_from(nanos / 1000).unwrap_or(u32::MAX);
    let statistics = Statistics {
        dump: Some(DumpStatistics {
            frozen_time: micros(manifest.times.frozen_ns),
            pages_written: pages.map(|file| file.size / PAGE_SIZE as u64).sum(),
            ..DumpStatistics::default()
        }),
    };
    let message = statistics.encode_to_vec();
    let mut image = Vec::new();
    for word in [MAGIC[0], MAGIC[1], message.len() as u32] {
        image.extend(word.to_le_bytes());
    }
    image.extend(message);
    image
}
