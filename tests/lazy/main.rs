//! Real processes whose memory comes from the page server when they touch it. Run in the
//! lab: `tests/lab/run --bare TEST-BINARY`.

#[allow(dead_code)]
#[path = "../criu/container.rs"]
mod container;
mod failures;
mod measure;
mod programs;
mod rig;
