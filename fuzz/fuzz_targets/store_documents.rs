#![no_main]

#[path = "../targets/store_documents.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| target::run(bytes));
