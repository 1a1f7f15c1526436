//! CRIU's maps from addresses to pages: `pagemap-PID.img`, `pagemap-shmem-ID.img`.
//!
//! An image is `u32 common magic, u32 magic`, then entries of `u32 length,
//! protobuf message`: first a head that names a `pages-ID.img`, then runs of
//! addresses, rising. The pages of those runs that are present lie one after
//! the other in that file. Read from slices, copying nothing.

use std::fmt;

use prost::Message;

use crate::{Error, ErrorKind, Result};

/// What a pagemap begins with.
const HEAD: [u8; 8] = [0x19, 0x43, 0x56, 0x54, 0x25, 0x40, 0x08, 0x56];
/// A larger entry than this is not one.
const MAX_ENTRY: usize = 4096;
/// CRIU's pages are the processor's; all others that it runs on have multiples of these.
const PAGE_SIZE: u64 = 4096;
/// No address space has more.
const MAX_PAGES: u64 = u64::MAX / PAGE_SIZE;

/// The pages are in the images of an earlier dump.
const IN_PARENT: u32 = 1;
/// The pages may be left to a page server.
const LAZY: u32 = 2;
/// The pages are in this dump.
const PRESENT: u32 = 4;

/// Something that pages belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Space {
    /// The private memory of the process of this id in the images.
    Process(u64),
    /// Memory shared between processes, by CRIU's id; its addresses are offsets.
    Shared(u64),
}

impl Space {
    /// The space that a pagemap of this file name is of, if it is one.
    pub fn of_file(name: &str) -> Option<Space> {
        let middle = name.strip_prefix("pagemap-")?.strip_suffix(".img")?;
        let space = match middle.strip_prefix("shmem-") {
            Some(id) => Space::Shared(id.parse().ok()?),
            None => Space::Process(middle.parse().ok()?),
        };
        (space.to_string() == name).then_some(space)
    }
}

/// The name of its pagemap.
impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Space::Process(id) => write!(f, "pagemap-{id}.img"),
            Space::Shared(id) => write!(f, "pagemap-shmem-{id}.img"),
        }
    }
}

/// The id of the pages file of this name, if it is one.
pub fn pages_id(name: &str) -> Option<u32> {
    let middle = name.strip_prefix("pages-")?.strip_suffix(".img")?;
    let id = middle.parse().ok()?;
    (pages_file(id) == name).then_some(id)
}

/// The name of the pages file with this id.
pub fn pages_file(id: u32) -> String {
    format!("pages-{id}.img")
}

/// A run of addresses whose pages are in the pages file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Number of the first page: its address divided by 4096.
    pub page: u64,
    /// How many pages; at least one.
    pub count: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Head {
    #[prost(uint32, required, tag = "1")]
    pages_id: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(uint64, required, tag = "1")]
    vaddr: u64,
    #[prost(uint32, required, tag = "2")]
    compat_nr_pages: u32,
    #[prost(bool, optional, tag = "3")]
    in_parent: Option<bool>,
    #[prost(uint32, optional, tag = "4")]
    flags: Option<u32>,
    #[prost(uint64, optional, tag = "5")]
    nr_pages: Option<u64>,
}

/// A pagemap.
#[derive(Debug, Clone, Copy)]
pub struct Pagemap<'a> {
    /// The id of the pages file.
    pub pages_id: u32,
    entries: &'a [u8],
}

impl<'a> Pagemap<'a> {
    /// Reads the head.
    pub fn parse(image: &'a [u8]) -> Result<Pagemap<'a>> {
        let mut rest = image
            .strip_prefix(&HEAD)
            .ok_or_else(|| damaged("does not begin as one does"))?;
        let head = take_entry(&mut rest)?.ok_or_else(|| damaged("is cut short"))?;
        let head = Head::decode(head).map_err(|_| damaged("cannot be decoded"))?;
        Ok(Pagemap {
            pages_id: head.pages_id,
            entries: rest,
        })
    }

    /// The runs of addresses whose pages are in the pages file, rising, in the pages' order.
    /// Ends after the first error.
    pub fn extents(self) -> impl Iterator<Item = Result<Extent>> {
        self.runs().map(|run| run.map(|(extent, _)| extent))
    }

    /// As [`Pagemap::extents`], each with whether CRIU leaves it to a page server.
    pub fn runs(self) -> impl Iterator<Item = Result<(Extent, bool)>> {
        let mut rest = self.entries;
        let mut end = 0;
        std::iter::from_fn(move || {
            loop {
                let extent = take_extent(&mut rest, &mut end);
                match extent {
                    Ok(Some((extent, flags))) if flags & PRESENT != 0 => {
                        return Some(Ok((extent, flags & LAZY != 0)));
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => return None,
                    Err(error) => {
                        rest = &[];
                        return Some(Err(error));
                    }
                }
            }
        })
    }

    /// How many runs and pages there are.
    pub fn totals(self) -> Result<(u64, u64)> {
        self.extents().try_fold((0, 0), |(runs, pages), extent| {
            // All of them fit below the last address.
            Ok((runs + 1, pages + extent?.count))
        })
    }
}

/// The next run and its flags. `end` is that of the run before.
fn take_extent(rest: &mut &[u8], end: &mut u64) -> Result<Option<(Extent, u32)>> {
    let Some(entry) = take_entry(rest)? else {
        return Ok(None);
    };
    let entry = Entry::decode(entry).map_err(|_| damaged("cannot be decoded"))?;
    let count = entry.nr_pages.unwrap_or(entry.compat_nr_pages.into());
    let page = entry.vaddr / PAGE_SIZE;
    let sound = entry.vaddr.is_multiple_of(PAGE_SIZE) && page >= *end && count > 0;
    if !sound || count > MAX_PAGES - page {
        return Err(damaged("has runs that are not whole pages in rising order"));
    }
    *end = page + count;
    let flags = entry.flags.unwrap_or(PRESENT);
    if flags & IN_PARENT != 0 || entry.in_parent == Some(true) {
        return Err(damaged(
            "leaves pages to an earlier dump, which is not here: take a full checkpoint",
        ));
    }
    Ok(Some((Extent { page, count }, flags)))
}

fn take_entry<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>> {
    if rest.is_empty() {
        return Ok(None);
    }
    let taken = rest.split_first_chunk::<4>().and_then(|(length, tail)| {
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        tail.split_at_checked(length)
            .filter(|_| length <= MAX_ENTRY)
    });
    let (entry, tail) = taken.ok_or_else(|| damaged("is cut short"))?;
    *rest = tail;
    Ok(Some(entry))
}

fn damaged(how: &str) -> Error {
    Error::new(ErrorKind::CorruptWorld, format!("the pagemap {how}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn image(pages_id: u32, entries: &[Entry]) -> Vec<u8> {
        let mut image = HEAD.to_vec();
        let mut put = |message: Vec<u8>| {
            image.extend((message.len() as u32).to_le_bytes());
            image.extend(message);
        };
        put(Head { pages_id }.encode_to_vec());
        for entry in entries {
            put(entry.encode_to_vec());
        }
        image
    }

    fn entry(page: u64, count: u64, flags: u32) -> Entry {
        Entry {
            vaddr: page * PAGE_SIZE,
            compat_nr_pages: 0,
            in_parent: None,
            flags: Some(flags),
            nr_pages: Some(count),
        }
    }

    fn extents(image: &[u8]) -> Result<Vec<(u64, u64)>> {
        let found = Pagemap::parse(image)?.extents();
        found
            .map(|extent| extent.map(|extent| (extent.page, extent.count)))
            .collect()
    }

    #[test]
    fn old_and_new_forms_are_read() {
        let old = Entry {
            flags: None,
            nr_pages: None,
            compat_nr_pages: 3,
            ..entry(0x1000, 0, 0)
        };
        let image = image(
            7,
            &[old, entry(0x2000, 1, PRESENT | 2), entry(0x3000, 9, 2)],
        );
        assert_eq!(Pagemap::parse(&image).unwrap().pages_id, 7);
        assert_eq!(extents(&image).unwrap(), [(0x1000, 3), (0x2000, 1)]);
        assert_eq!(Pagemap::parse(&image).unwrap().totals().unwrap(), (2, 4));
        let runs = Pagemap::parse(&image).unwrap().runs();
        let lazy: Vec<bool> = runs.map(|run| run.unwrap().1).collect();
        assert_eq!(lazy, [false, true]);
    }

    #[test]
    fn what_is_no_map_is_refused() {
        let odd = Entry {
            vaddr: 5,
            ..entry(1, 1, PRESENT)
        };
        for wrong in [
            vec![odd],
            vec![entry(5, 2, PRESENT), entry(6, 1, PRESENT)],
            vec![entry(1, 0, PRESENT)],
            vec![entry(1, u64::MAX, PRESENT)],
            vec![entry(1, 1, IN_PARENT)],
        ] {
            let error = extents(&image(1, &wrong)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::CorruptWorld);
        }
    }

    #[test]
    fn file_names_have_one_form() {
        for space in [Space::Process(12), Space::Shared(0)] {
            assert_eq!(Space::of_file(&space.to_string()), Some(space));
        }
        for other in [
            "pagemap-01.img",
            "pagemap-+1.img",
            "pagemap-x.img",
            "pages-1.img",
        ] {
            assert_eq!(Space::of_file(other), None);
        }
        assert_eq!(pages_id("pages-12.img"), Some(12));
        assert_eq!(pages_id("pages-012.img"), None);
        assert_eq!(pages_id("pagemap-1.img"), None);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(mut bytes: Vec<u8>, with_head: bool) {
            if with_head {
                bytes.splice(0..0, image(1, &[]));
            }
            let _ = extents(&bytes);
        }

        #[test]
        fn any_entries_never_panic(
            entries in prop::collection::vec(
                (any::<u64>(), any::<u32>(), any::<Option<u32>>(), any::<Option<u64>>()), 0..5),
        ) {
            let entries: Vec<_> = entries
                .into_iter()
                .map(|(vaddr, compat_nr_pages, flags, nr_pages)| Entry {
                    vaddr, compat_nr_pages, in_parent: None, flags, nr_pages,
                })
                .collect();
            let image = image(1, &entries);
            let _ = Pagemap::parse(&image).unwrap().totals();
        }
    }
}
