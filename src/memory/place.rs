//! Where a page is.

/// Where a page is: nowhere, being zero, or in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It is all zeros.
    Zero,
    /// It is in a pack.
    Pack {
        /// The pack's number in the list of packs at hand.
        pack: u32,
        /// The page's number in the pack.
        page: u32,
    },
}

impl Place {
    /// Whether it is in one of the packs that are marked, by number.
    pub fn is_in(self, marked: &[bool]) -> bool {
        match self {
            Place::Zero => false,
            Place::Pack { pack, .. } => marked.get(pack as usize) == Some(&true),
        }
    }

    /// The place `count` pages further.
    pub fn after(self, count: u32) -> Place {
        match self {
            Place::Zero => Place::Zero,
            Place::Pack { pack, page } => Place::Pack {
                pack,
                page: page.saturating_add(count),
            },
        }
    }
}

/// Pages one after the other whose places are one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Where the first page is.
    pub place: Place,
    /// How many pages; at least one.
    pub count: u32,
}

impl Run {
    /// Takes `next` to the end of this run, if it goes on there.
    pub fn join(&mut self, next: Run) -> bool {
        let joined = self.count.checked_add(next.count);
        match joined {
            Some(count) if self.place.after(self.count) == next.place => {
                self.count = count;
                true
            }
            _ => false,
        }
    }

    /// The run without its first `count` pages, of which it must have more.
    #[must_use]
    pub fn skip(self, count: u32) -> Run {
        Run {
            place: self.place.after(count),
            count: self.count - count,
        }
    }

    /// At most the first `count` pages of the run.
    #[must_use]
    pub fn at_most(self, count: u32) -> Run {
        Run {
            count: self.count.min(count),
            ..self
        }
    }
}
