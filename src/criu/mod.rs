//! CRIU: finding it, talking to it, its options, logs and images.
//!
//! CRIU is run as `criu swrk FD`: one process per request, which speaks
//! protobuf messages over a socket of ours. Nothing here knows what a
//! container or a world is.

mod cause;
pub mod driver;
pub mod dumped;
pub mod features;
mod guard;
pub mod images;
mod known_version;
pub mod log;
pub mod pagemap;
pub mod pagemap_counts;
pub mod rpc;
pub mod tcp_image;
pub mod timer_image;
mod wire;
mod worker;

pub use driver::{Answer, Call, Criu, Notification, PATIENCE};
pub use guard::{Death, OnDeath};
pub use worker::{FIRST_PASSED_FD, Launch, PassedFd, Worker};
