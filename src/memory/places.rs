//! The end of packing: from the places that were found to the index.

use std::collections::HashMap;

use super::images::{Images, PagesImage};
use super::index::{MAX_INDEX, PackRef};
use super::index_writer::IndexWriter;
use super::packs::Met;
use super::place::{Place, Run};
use super::plan::{FinishedPlan, Runs};
use crate::criu::pagemap::Pagemap;
use crate::digest::Digest;
use crate::store::{BlobWriter, Lease, Written};
use crate::{Error, ErrorKind, Result};

/// What packing made.
#[derive(Debug)]
pub struct Packed {
    /// The index.
    pub index: Written,
    /// The packs that it refers to, in the order of its list.
    pub packs: Vec<PackOfWorld>,
    /// Pages of the images.
    pub pages: u64,
    /// Those that are all zeros.
    pub zero_pages: u64,
    /// Pages that were stored in new packs.
    pub stored_pages: u64,
}

/// A pack that a world refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackOfWorld {
    /// Its digest.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// Whether it was written for this world.
    pub new: bool,
}

/// Where all pages are.
pub struct Places {
    plan: FinishedPlan,
    /// Where the pages are that the plan has in packs that are left.
    again: FinishedPlan,
    left: Vec<bool>,
    packs: Vec<Met>,
}

impl Places {
    /// `left` and `packs` by number.
    pub fn new(
        plan: FinishedPlan,
        again: FinishedPlan,
        left: Vec<bool>,
        packs: Vec<Met>,
    ) -> Places {
        Places {
            plan,
            again,
            left,
            packs,
        }
    }

    /// Writes the index.
    pub fn write_index(
        &mut self,
        images: &Images,
        lease: &Lease,
        stored_pages: u64,
    ) -> Result<Packed> {
        let order = self.order()?;
        let refs: Vec<PackRef> = order
            .packs
            .iter()
            .map(|(digest, pack)| PackRef {
                digest: *digest,
                pages: pack.pages,
            })
            .collect();
        let mut writer = IndexWriter::new(lease.write_blob()?, &refs, images.files().len())?;
        let mut runs = self.runs()?;
        for image in images.files() {
            write_file(&mut writer, images, image)?;
            let mut left = image.pages;
            while left > 0 {
                let run = runs.take(left)?.ok_or_else(too_short)?;
                left -= u64::from(run.count);
                writer.run(order.renumber(run))?;
            }
        }
        let index = writer.finish()?.finish()?;
        if index.size > MAX_INDEX as u64 {
            let text = "the memory is scattered too widely: its index is larger than 256 MiB";
            return Err(Error::new(ErrorKind::NoSpace, text));
        }
        Ok(Packed {
            index,
            packs: order.packs_of_world(),
            pages: images.pages(),
            zero_pages: order.zero_pages,
            stored_pages,
        })
    }

    /// Numbers the packs by their first use.
    fn order(&mut self) -> Result<Order> {
        let packs = self.packs.clone();
        let mut order = Order::default();
        let mut by_digest: HashMap<Digest, u32> = HashMap::new();
        let mut runs = self.runs()?;
        while let Some(run) = runs.take(u64::MAX)? {
            let Place::Pack { pack, .. } = run.place else {
                order.zero_pages += u64::from(run.count);
                continue;
            };
            if order.numbers.contains_key(&pack) {
                continue;
            }
            let met = packs[pack as usize];
            let digest = met.digest.ok_or_else(too_short)?;
            let number = *by_digest.entry(digest).or_insert_with(|| {
                order.packs.push((digest, met));
                order.packs.len() as u32 - 1
            });
            order.numbers.insert(pack, number);
        }
        Ok(order)
    }

    fn runs(&mut self) -> Result<AllRuns<'_>> {
        Ok(AllRuns {
            plan: self.plan.runs()?,
            again: self.again.runs()?,
            left: &self.left,
            waiting: 0,
        })
    }
}

/// The packs in the order of their first use.
#[derive(Default)]
struct Order {
    packs: Vec<(Digest, Met)>,
    /// From the packer's numbers. Two of them may be the same pack: another packer may have
    /// stored the same pages at the same time.
    numbers: HashMap<u32, u32>,
    zero_pages: u64,
}

impl Order {
    fn renumber(&self, run: Run) -> Run {
        let place = match run.place {
            Place::Pack { pack, page } => Place::Pack {
                pack: self.numbers[&pack],
                page,
            },
            Place::Zero => Place::Zero,
        };
        Run { place, ..run }
    }

    fn packs_of_world(&self) -> Vec<PackOfWorld> {
        let packs = self.packs.iter().map(|(digest, met)| PackOfWorld {
            digest: *digest,
            size: met.size,
            new: met.own,
        });
        packs.collect()
    }
}

/// The runs of the plan, with those of the second where the first has packs that are left.
struct AllRuns<'a> {
    plan: Runs<'a>,
    again: Runs<'a>,
    left: &'a [bool],
    /// Pages still to be taken from the second plan.
    waiting: u64,
}

impl AllRuns<'_> {
    fn take(&mut self, most: u64) -> Result<Option<Run>> {
        if self.waiting == 0 {
            match self.plan.take(most)? {
                Some(run) if run.place.is_in(self.left) => self.waiting = run.count.into(),
                run => return Ok(run),
            }
        }
        let run = self
            .again
            .take(self.waiting.min(most))?
            .ok_or_else(too_short)?;
        self.waiting -= u64::from(run.count);
        Ok(Some(run))
    }
}

/// The part of a file's section that tells of address spaces.
fn write_file(
    writer: &mut IndexWriter<BlobWriter>,
    images: &Images,
    image: &PagesImage,
) -> Result<()> {
    writer.file(image.id, image.pages, image.spaces.len())?;
    for (space, count) in &image.spaces {
        let pagemap = images.pagemap(*space)?;
        writer.space(*space, *count, Pagemap::parse(&pagemap)?.extents())?;
    }
    Ok(())
}

fn too_short() -> Error {
    let text = "the plan of a world's pages is too short";
    Error::new(ErrorKind::Internal, text)
}
