//! What a packer has found: the place of every page so far, in order.
//!
//! Kept in a file without a name, for a world may have any size. Twelve bytes
//! per run, little endian: u32, the pack, all ones for zeros; u32, the first
//! page in it; u32, how many.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};

use super::place::{Place, Run};
use crate::Result;
use crate::error::IoContext;

const ENTRY: usize = 12;
const ZERO: u32 = u32::MAX;
/// How much is read or written at once, in bytes.
const BUFFER: usize = 64 << 10;

/// A plan in the making.
pub struct Plan {
    out: BufWriter<File>,
    last: Option<Run>,
}

impl Plan {
    /// Begins a plan in an empty file.
    pub fn new(file: File) -> Plan {
        Plan {
            out: BufWriter::with_capacity(BUFFER, file),
            last: None,
        }
    }

    /// The place of the next page.
    pub fn push(&mut self, place: Place) -> Result<()> {
        let run = Run { place, count: 1 };
        if let Some(last) = &mut self.last
            && last.join(run)
        {
            return Ok(());
        }
        self.write_last()?;
        self.last = Some(run);
        Ok(())
    }

    fn write_last(&mut self) -> Result<()> {
        let Some(run) = self.last.take() else {
            return Ok(());
        };
        let (pack, page) = match run.place {
            Place::Zero => (ZERO, 0),
            Place::Pack { pack, page } => (pack, page),
        };
        for number in [pack, page, run.count] {
            let written = self.out.write_all(&number.to_le_bytes());
            written.context(|| "write the plan of a world's pages")?;
        }
        Ok(())
    }

    /// The whole plan.
    pub fn finish(mut self) -> Result<FinishedPlan> {
        self.write_last()?;
        let file = self.out.into_inner();
        let file = file.map_err(std::io::IntoInnerError::into_error);
        Ok(FinishedPlan {
            file: file.context(|| "write the plan of a world's pages")?,
        })
    }
}

/// A plan that can be read, again and again.
pub struct FinishedPlan {
    file: File,
}

impl FinishedPlan {
    /// Reads from the beginning; one reader at a time.
    pub fn runs(&mut self) -> Result<Runs<'_>> {
        self.file.rewind().context(|| "read a plan of pages")?;
        Ok(Runs {
            reader: BufReader::with_capacity(BUFFER, &self.file),
            left: None,
        })
    }
}

/// The runs of a plan.
pub struct Runs<'a> {
    reader: BufReader<&'a File>,
    left: Option<Run>,
}

impl Runs<'_> {
    /// The next run, cut to at most `most` pages; `None` at the end.
    pub fn take(&mut self, most: u64) -> Result<Option<Run>> {
        let whole = match self.left.take() {
            Some(run) => run,
            None => match self.read()? {
                Some(run) => run,
                None => return Ok(None),
            },
        };
        let run = whole.at_most(u32::try_from(most).unwrap_or(u32::MAX));
        if run.count < whole.count {
            self.left = Some(whole.skip(run.count));
        }
        Ok(Some(run))
    }

    fn read(&mut self) -> Result<Option<Run>> {
        let doing = || "read a plan of pages";
        let mut bytes = [0; ENTRY];
        if self.reader.read(&mut bytes[..1]).context(doing)? == 0 {
            return Ok(None);
        }
        self.reader.read_exact(&mut bytes[1..]).context(doing)?;
        let (words, _) = bytes.as_chunks::<4>();
        let [pack, page, count] = [0, 1, 2].map(|at| u32::from_le_bytes(words[at]));
        let place = match pack {
            ZERO => Place::Zero,
            pack => Place::Pack { pack, page },
        };
        Ok(Some(Run { place, count }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn plans_come_back(
            places in prop::collection::vec(prop::option::of((0u32..3, 0u32..4)), 0..200),
            most in 1u64..5,
        ) {
            let places: Vec<Place> = places
                .into_iter()
                .map(|place| match place {
                    None => Place::Zero,
                    Some((pack, page)) => Place::Pack { pack, page },
                })
                .collect();
            let mut plan = Plan::new(tempfile::tempfile().unwrap());
            for place in &places {
                plan.push(*place).unwrap();
            }
            let mut plan = plan.finish().unwrap();
            for _ in 0..2 {
                let mut runs = plan.runs().unwrap();
                let mut read = Vec::new();
                while let Some(run) = runs.take(most).unwrap() {
                    prop_assert!(u64::from(run.count) <= most);
                    read.extend((0..run.count).map(|at| run.place.after(at)));
                }
                prop_assert_eq!(&read, &places);
            }
        }
    }
}
