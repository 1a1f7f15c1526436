//! What a world is: capture, verify, bring back.

pub mod checkpoint;
pub mod restore;
pub mod rootfs;
