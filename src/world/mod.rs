//! What a world is: capture, verify, bring back.

pub mod artifact;
pub mod cgroup_path;
pub mod checkpoint;
pub mod checksum;
pub mod config;
pub mod credential;
pub mod diff;
pub mod directory;
pub mod env;
pub mod file_name;
pub mod fingerprint;
pub mod folder;
pub mod follow;
pub mod host;
pub mod identity;
pub mod manifest;
pub mod policy;
pub mod processes;
pub mod publish;
pub mod raw_text;
pub mod restore;
pub mod rootfs;
pub mod secrets;
pub mod spec;
pub mod trust;
pub mod verify;
