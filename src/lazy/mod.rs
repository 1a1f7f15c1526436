//! Memory that comes when it is touched: the page server of a world and its lines.
//!
//! CRIU restores a process without most of its memory and leaves a userfaultfd:
//! a descriptor on which whoever holds it reads of page faults, and through
//! which it fills pages. The page server of a world holds those of all siblings
//! that were forked of it, and fills them from the store's packs.
//!
//! ```text
//! handover     from CRIU: each task's userfaultfd
//! line         a sibling's tie to the server; keeps its memory from becoming zeros
//!   ├─ message what goes over it
//!   └─ custody how it changes hands
//! daemon       a server per world, started when it is needed
//! server       the server: one thread for all siblings of a world
//!   ├─ working_set    what siblings want first
//!   ├─ sibling   a line at the server's end
//!   └─ space     one address space
//!        ├─ missing   what it lacks
//!        ├─ streams   how much to fill at a fault
//!        └─ source    pages out of packs
//! ```

pub mod custody;
pub mod daemon;
pub mod handover;
pub mod line;
pub mod message;
mod missing;
pub mod server;
mod sibling;
mod source;
mod space;
mod streams;
mod working_set;

pub use line::{Line, News};

/// What a container is called on its line. The server may still have one of the same id that
/// has just been removed: the fork's id tells them apart.
pub fn sibling_name(namespace: &str, container: &str, fork: &str) -> String {
    format!("{namespace}/{container}/{fork}")
}
