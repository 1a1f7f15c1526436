//! The world directory: written, verified, damaged, and what it says about secrets.
mod common;
mod directory;
