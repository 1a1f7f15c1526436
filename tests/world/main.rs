//! The world directory: written, verified, damaged, and what it says about secrets.
mod common;
mod damage;
mod directory;
mod env;
mod manifest;
mod secrets;
mod spec;
