//! A region of a process's memory.

use std::ops::Range;
use std::sync::Arc;

use super::files::Files;
use super::image::{Images, damaged, decode};
use super::message::{Area, Map};
use crate::Result;
use crate::criu::wire;

const MM_MAGIC: u32 = 0x5749_2820;
const PAGE: u64 = 4096;
/// Field of a memory map that holds a region.
const AREA: u32 = 14;

// Bits of a region's status, from CRIU's criu/include/image.h.
const STACK: u32 = 1 << 1;
const VSYSCALL: u32 = 1 << 2;
const VDSO: u32 = 1 << 3;
const HEAP: u32 = 1 << 5;
const FILE_PRIVATE: u32 = 1 << 6;
const FILE_SHARED: u32 = 1 << 7;
const ANON_SHARED: u32 = 1 << 8;
const SYSV: u32 = 1 << 10;
const SOCKET: u32 = 1 << 11;
const VVAR: u32 = 1 << 12;
const AIO_RING: u32 = 1 << 13;
const MEMFD: u32 = 1 << 14;
/// The bit of `MADV_WIPEONFORK` among the advices.
const WIPE_ON_FORK: u64 = 1 << 18;
/// The kernel's MAP_SHARED; MAP_SHARED_VALIDATE has the bit, too.
const MAP_SHARED: u32 = 1;

/// Where the contents of a region are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// In the pages of the process; others are zeros.
    Private,
    /// In the pages of the process; others are the file's.
    PrivateFile,
    /// In pages that processes share.
    Shared {
        /// CRIU's id of the memory.
        id: u64,
        /// The region's first page in it.
        first: u64,
    },
    /// Nowhere in the pages: in a file, in System V shared memory, in the kernel.
    Elsewhere,
}

/// A region: addresses in bytes, multiples of 4096.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Its first byte.
    pub start: u64,
    /// The byte after its last.
    pub end: u64,
    /// As the kernel's PROT_: 1 read, 2 write, 4 execute.
    pub protection: u32,
    /// Whether writes are seen by others.
    pub shared: bool,
    /// The file's path, or a name in brackets as in `/proc/PID/maps`; empty for plain memory.
    pub name: Arc<[u8]>,
    /// Where its contents are.
    pub backing: Backing,
}

/// What a process's map says.
#[derive(Default)]
pub(super) struct MemoryMap {
    pub executable: Option<u32>,
    pub regions: Vec<Region>,
}

/// Reads a process's map; that of a zombie is empty.
pub(super) fn read(images: &Images, files: &Files, pid: u32) -> Result<MemoryMap> {
    let name = format!("mm-{pid}.img");
    let Some(message) = images.message(&name, MM_MAGIC)? else {
        return Ok(MemoryMap::default());
    };
    let map: Map = decode(&name, message)?;
    let fields = wire::fields(message).ok_or_else(|| damaged(&name, "cannot be decoded"))?;
    let mut regions: Vec<Region> = Vec::new();
    // One by one: what is no region ends it before it takes much memory.
    for field in fields.iter().filter(|field| field.number == AREA) {
        let area = field.bytes().unwrap_or_default();
        let mut region = region(&decode(&name, area)?, files);
        if region.name.is_empty() && (region.start..region.end).contains(&map.stack) {
            region.name = (*b"[stack]").into();
        }
        let end = regions.last().map_or(0, |before| before.end);
        let whole = region.start.is_multiple_of(PAGE) && region.end.is_multiple_of(PAGE);
        if !whole || region.start < end || region.start >= region.end {
            return Err(damaged(
                &name,
                "has regions that are not whole pages in rising order",
            ));
        }
        regions.push(region);
    }
    Ok(MemoryMap {
        executable: Some(map.executable),
        regions,
    })
}

/// The pages of a process whose contents no child is to see (`MADV_WIPEONFORK`), by number:
/// address divided by 4096. Rising where the image is sound.
pub fn wiped_on_fork(images: &Images, pid: u32) -> Result<Vec<Range<u64>>> {
    let name = format!("mm-{pid}.img");
    let Some(message) = images.message(&name, MM_MAGIC)? else {
        return Ok(Vec::new());
    };
    let fields = wire::fields(message).ok_or_else(|| damaged(&name, "cannot be decoded"))?;
    let mut wiped = Vec::new();
    for field in fields.iter().filter(|field| field.number == AREA) {
        let area: Area = decode(&name, field.bytes().unwrap_or_default())?;
        if area.advice.unwrap_or(0) & WIPE_ON_FORK != 0 {
            wiped.push(area.start / PAGE..area.end / PAGE);
        }
    }
    Ok(wiped)
}

fn region(area: &Area, files: &Files) -> Region {
    let is = |bits: u32| area.status & bits != 0;
    // A file's id, where the region is of a file.
    let file = u32::try_from(area.shared).ok();
    let memfd = file.filter(|_| is(MEMFD)).and_then(|id| files.memfd(id));
    let first = area.offset / PAGE;
    let backing = match memfd {
        _ if is(VSYSCALL | VVAR | SYSV | SOCKET | AIO_RING) => Backing::Elsewhere,
        Some(memfd) if is(FILE_SHARED | ANON_SHARED) => Backing::Shared {
            id: memfd.shared.into(),
            first,
        },
        _ if is(ANON_SHARED) => Backing::Shared {
            id: area.shared,
            first,
        },
        _ if is(FILE_SHARED) => Backing::Elsewhere,
        _ if is(FILE_PRIVATE) => Backing::PrivateFile,
        _ => Backing::Private,
    };
    let name = match file {
        Some(id) if is(FILE_PRIVATE | FILE_SHARED | MEMFD) => files
            .get(id)
            .map(|file| file.name.clone())
            .unwrap_or_default(),
        _ => special(area.status).into(),
    };
    Region {
        start: area.start,
        end: area.end,
        protection: area.protection,
        shared: area.flags & MAP_SHARED != 0,
        name,
        backing,
    }
}

fn special(status: u32) -> &'static [u8] {
    const NAMES: [(u32, &[u8]); 8] = [
        (HEAP, b"[heap]"),
        (STACK, b"[stack]"),
        (VDSO, b"[vdso]"),
        (VVAR, b"[vvar]"),
        (VSYSCALL, b"[vsyscall]"),
        (SYSV, b"[sysv]"),
        (SOCKET, b"[socket]"),
        (AIO_RING, b"[aio]"),
    ];
    let found = NAMES.iter().find(|(bit, _)| status & bit != 0);
    found.map_or(b"", |(_, name)| name)
}
