//! One row of the table.

/// A script, and what it shows.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its name, unique in the table.
    pub name: &'static str,
    /// bash; see `prelude.sh`.
    pub script: &'static str,
    /// Standard output, trimmed, with the case's id written as `ID`.
    pub shows: &'static str,
    /// Where our runtime differs on purpose.
    pub ours: Option<Difference>,
    /// Several things happen at once in one container: the order of its events varies.
    pub unordered: bool,
    /// Disturbs containerd itself: runs while no other case does.
    pub alone: bool,
}

/// A deliberate difference from runc's runtime.
#[derive(Debug, Clone, Copy)]
pub struct Difference {
    /// The reason.
    pub why: &'static str,
    /// What the script shows with our runtime.
    pub shows: &'static str,
    /// The events are the same all the same.
    pub same_events: bool,
}

impl Case {
    /// A case in which both runtimes do the same.
    pub const fn same(name: &'static str, script: &'static str, shows: &'static str) -> Case {
        Case {
            name,
            script,
            shows,
            ours: None,
            unordered: false,
            alone: false,
        }
    }

    /// The case, run while no other is.
    pub const fn alone(mut self) -> Case {
        self.alone = true;
        self
    }

    /// The case, with events whose order varies.
    pub const fn unordered(mut self) -> Case {
        self.unordered = true;
        self
    }

    /// The case, with something else shown by our runtime.
    pub const fn ours(mut self, why: &'static str, shows: &'static str) -> Case {
        self.ours = Some(Difference {
            why,
            shows,
            same_events: true,
        });
        self
    }

    /// The case, with other events from our runtime as well.
    pub const fn other_events(mut self) -> Case {
        if let Some(mut difference) = self.ours {
            difference.same_events = false;
            self.ours = Some(difference);
        }
        self
    }
}
