//! How long the layers of a rootfs take and how large they are: a full one, and
//! a delta after 10 changed files. Needs root. Prints medians in milliseconds.

use std::fs::File;
use std::io::Seek;
use std::path::Path;
use std::time::Instant;
use worldshim::digest::hash_file;
use worldshim::world::rootfs::layers::{Expected, Outcome, merge, write_delta, write_full};
use worldshim::world::rootfs::{Layering, Upper, capture};

const RUNS: usize = 5;
const FILES: u64 = 5000;
const BYTES: usize = 13_421;

fn main() {
    let base = tempfile::tempdir_in(".").expect("a directory on the disk to measure");
    let upper = base.path().join("upper");
    println!("{FILES} files, 64 MiB in all; 10 files changed; medians of {RUNS} runs");
    let cases: [(&str, Content); 2] = [("random content", random), ("text", text)];
    for (name, content) in cases {
        fill(&upper, content);
        let first = archive(&upper, base.path(), "first.tar");
        for number in 0..10 {
            let path = place(&upper, number * 499);
            std::fs::write(path, content(number + 100_000)).unwrap();
        }
        let second = archive(&upper, base.path(), "second.tar");
        measure(name, &first, &second);
        std::fs::remove_dir_all(&upper).unwrap();
    }
    println!("peak memory: {} KiB", peak_memory());
}

fn measure(name: &str, (first, before): &Archive, (second, expected): &Archive) {
    let new = || tempfile::tempfile_in(".").unwrap();
    let size = |file: &File| file.metadata().unwrap().len();
    let (full, ms) = median(|| {
        let mut layer = new();
        write_full(first, before, &mut layer).unwrap();
        layer
    });
    println!("{name:<16} full   {:>10} bytes {ms:>8.1}", size(&full));
    let mut parents = [full];
    let (mut delta, ms) = median(|| {
        let mut layer = new();
        match write_delta(second, expected, &mut parents, &mut layer).unwrap() {
            Outcome::Delta { .. } => layer,
            other => panic!("{other:?}"),
        }
    });
    println!("{name:<16} delta  {:>10} bytes {ms:>8.1}", size(&delta));
    let [full] = &mut parents;
    let (out, ms) = median(|| {
        full.rewind().unwrap();
        delta.rewind().unwrap();
        let mut out = new();
        merge(&mut [&*full, &delta], expected, &mut out).unwrap();
        out
    });
    println!("{name:<16} merge  {:>10} bytes {ms:>8.1}", size(&out));
}

/// The last result, and the median milliseconds.
fn median<T>(mut run: impl FnMut() -> T) -> (T, f64) {
    let mut times = Vec::new();
    let mut last = None;
    for _ in 0..RUNS {
        let begin = Instant::now();
        last = Some(run());
        times.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    (last.expect("run at least once"), times[RUNS / 2])
}

fn place(upper: &Path, number: u64) -> std::path::PathBuf {
    upper.join(format!("d{}/f{number}", number / 50))
}

fn fill(upper: &Path, content: Content) {
    for number in 0..FILES {
        let path = place(upper, number);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content(number)).unwrap();
    }
}

/// A `rootfs.tar`.
type Archive = (File, Expected);

/// Makes what a file holds from its number.
type Content = fn(u64) -> Vec<u8>;

/// What a compressor makes a good deal smaller.
fn text(seed: u64) -> Vec<u8> {
    let line = |line: u64| format!("{} of {seed}\n", line * line * (seed + 7)).into_bytes();
    (0..).flat_map(line).take(BYTES).collect()
}

/// What no compressor makes smaller: xorshift64.
fn random(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(BYTES + 8);
    while bytes.len() < BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(BYTES);
    bytes
}

fn archive(upper: &Path, base: &Path, name: &str) -> Archive {
    let layering = Layering::Overlay { userxattr: false };
    let out = File::create(base.join(name)).unwrap();
    capture(&Upper::open(upper, layering).unwrap(), out).unwrap();
    let tar = File::open(base.join(name)).unwrap();
    let (sha256, size) = hash_file(&tar, name).unwrap();
    (tar, Expected { size, sha256 })
}

fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let digits = line.unwrap().split_whitespace().nth(1).unwrap();
    digits.parse().unwrap()
}
