//! The table, in parts.

mod exec;
mod isolation;
mod lifetime;
mod namespaces;
mod nerdctl;
mod output;
mod resources;
mod shims;
mod signals;
mod spec;
mod streams;

use super::case::Case;

/// All of it.
pub fn all() -> impl Iterator<Item = &'static Case> {
    let parts = [
        output::CASES,
        streams::CASES,
        exec::CASES,
        signals::CASES,
        lifetime::CASES,
        resources::CASES,
        isolation::CASES,
        namespaces::CASES,
        spec::CASES,
        nerdctl::CASES,
        shims::CASES,
    ];
    parts.into_iter().flatten()
}
