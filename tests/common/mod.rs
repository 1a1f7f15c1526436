//! What the suites that run in the lab share.

#![allow(dead_code, reason = "no suite uses all of it")]

pub mod config;
pub mod container;
pub mod ctr;
pub mod fifos;
pub mod image;
pub mod lab;
pub mod leftovers;
pub mod processes;
pub mod rpc;
pub mod suite;
