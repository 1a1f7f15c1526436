//! The only place where `unsafe` is allowed: system calls that no crate wraps.
#![allow(unsafe_code)]
#![warn(clippy::undocumented_unsafe_blocks)]
