#![no_main]

#[path = "../targets/rootfs_layers.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::run(bytes));
