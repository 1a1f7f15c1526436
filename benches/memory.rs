//! How fast memory is packed and unpacked, how small it becomes, and how long one
//! page takes; and what other sizes of frames would mean. Needs root and python3,
//! whose memory is the example of memory that is not random.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use worldshim::digest::Digest;
use worldshim::memory::frame::Decoder;
use worldshim::memory::images::Images;
use worldshim::memory::index::{Index, MAX_INDEX};
use worldshim::memory::pack::PackReader;
use worldshim::memory::sharing::Sharing;
use worldshim::memory::{PAGE_SIZE, Packed, packer, unpacker};
use worldshim::store::{Lease, Store};

/// All are of one lineage.
const SHARING: Sharing = Sharing {
    origin: Digest::from_bytes([1; 32]),
    all: false,
};

const RUNS: usize = 5;
const MIB: f64 = (1 << 20) as f64;

fn main() {
    let base = tempfile::tempdir_in(".").expect("a directory on the disk to measure");
    for (name, content) in [
        ("random, 256 MiB", random(256 << 20)),
        ("python, its modules and objects", python()),
    ] {
        println!("{name}: {:.0} MiB", content.len() as f64 / MIB);
        measure(base.path(), content);
    }
}

fn random(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    File::open("/dev/urandom")
        .and_then(|file| file.read_exact_at(&mut bytes, 0))
        .expect("random bytes");
    bytes
}

const PROGRAM: &str = r#"
import asyncio, decimal, email.message, http.client, json, logging, sqlite3, ssl, sys, unittest, xml.dom
rows = [{"id": i, "name": f"row {i}", "tags": [str(i * j) for j in range(8)]} for i in range(120000)]
text = json.dumps(rows)
print("ready", flush=True)
sys.stdin.read()
"#;

/// The private writable memory of a python process.
fn python() -> Vec<u8> {
    let mut child = Command::new("python3")
        .args(["-c", PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts");
    let mut line = String::new();
    let output = child.stdout.take().expect("its output");
    BufReader::new(output).read_line(&mut line).expect("ready");
    let memory = File::open(format!("/proc/{}/mem", child.id())).expect("its memory");
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", child.id())).expect("its maps");
    let mut content = Vec::new();
    for map in maps.lines().filter(|line| line.contains(" rw-p ")) {
        let (start, rest) = map.split_once('-').expect("an address");
        let end = rest.split(' ').next().expect("an address");
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).expect("hex"));
        let mut region = vec![0; (end - start) as usize];
        if memory.read_exact_at(&mut region, start).is_ok() {
            content.extend(region);
        }
    }
    drop(child.stdin.take());
    child.wait().expect("python3 ends");
    // CRIU leaves untouched pages out.
    let pages = content.chunks(PAGE_SIZE);
    pages
        .filter(|page| page.iter().any(|byte| *byte != 0))
        .collect::<Vec<_>>()
        .concat()
}

fn measure(base: &Path, mut content: Vec<u8>) {
    frame_sizes(&content);
    let dir = tempfile::tempdir_in(base).expect("a directory");
    let write =
        |content: &[u8]| std::fs::write(dir.path().join("pages-1.img"), content).expect("an image");
    write(&content);
    let mut times = [const { Vec::new() }; 4];
    let mut packed = None;
    for _ in 0..RUNS {
        write(&content);
        let (store, lease) = new_store(base);
        times[0].push(timed(|| packed = Some(pack(dir.path(), &lease))));
        times[1].push(timed(|| drop(pack(dir.path(), &lease))));
        let first = packed.as_ref().expect("packed");
        times[2].push(timed(|| unpack(base, &store, &lease, first)));
        for page in content.chunks_mut(PAGE_SIZE).step_by(100) {
            page[..8].copy_from_slice(&random(8));
        }
        write(&content);
        let mut second = None;
        times[3].push(timed(|| second = Some(pack(dir.path(), &lease))));
        let second = second.expect("packed");
        let bytes: u64 = second.packs.iter().filter(|p| p.new).map(|p| p.size).sum();
        let first = first.packs.iter().map(|pack| pack.size).sum::<u64>();
        println!(
            "  1 % changed: {} pages, {bytes} bytes in packs and {} of index, {:.2} % of the first's {first}",
            second.stored_pages,
            second.index.size,
            (bytes + second.index.size) as f64 * 100.0 / first as f64
        );
        if times[0].len() == RUNS {
            let ratio = first as f64 / content.len() as f64;
            println!("  packs are {ratio:.3} of the pages");
            latency(&store, &second);
        }
    }
    for (what, times) in ["pack", "pack again", "unpack", "pack, 1 % changed"]
        .iter()
        .zip(times)
    {
        let time = median(times);
        let rate = content.len() as f64 / MIB / time.as_secs_f64();
        println!(
            "  {what}: {:.0} ms, {rate:.0} MiB/s",
            time.as_secs_f64() * 1e3
        );
    }
}

fn new_store(base: &Path) -> (Store, Lease) {
    let root = tempfile::tempdir_in(base).expect("a directory").keep();
    let store = Store::open(&root.join("store")).expect("a store");
    let lease = store.lease().expect("a lease");
    (store, lease)
}

fn pack(dir: &Path, lease: &Lease) -> Packed {
    let dir = File::open(dir).expect("the images");
    let images = Images::look(dir.as_fd(), ["pages-1.img"]).expect("the images");
    packer::pack(&images, lease, &SHARING, &|_| {}).expect("packed")
}

fn unpack(base: &Path, store: &Store, lease: &Lease, packed: &Packed) {
    let out = tempfile::tempdir_in(base).expect("a directory");
    let folder = File::open(out.path()).expect("a folder");
    let bytes = store
        .read(&packed.index.digest, MAX_INDEX)
        .expect("the index");
    let index = Index::parse(bytes).expect("the index");
    unpacker::unpack(&index, lease, folder.as_fd(), &|_| {}).expect("unpacked");
}

/// How long single pages take, from anywhere in a pack.
fn latency(store: &Store, packed: &Packed) {
    let largest = packed
        .packs
        .iter()
        .max_by_key(|pack| pack.size)
        .expect("a pack");
    let file = store.open_blob(&largest.digest).expect("a pack").file;
    let reader = PackReader::open(file).expect("a pack");
    let mut decoder = Decoder::new().expect("a decoder");
    let mut page = [0; PAGE_SIZE];
    let pages = (0..2000).map(|n| n * 7919 % reader.pages());
    let times = pages.map(|number| {
        timed(|| {
            reader
                .read_page(number, &mut decoder, &mut page)
                .expect("a page")
        })
    });
    println!(
        "  one page: {:.1} us",
        median(times.collect()).as_secs_f64() * 1e6
    );
}

/// What frames of other sizes would be.
fn frame_sizes(content: &[u8]) {
    for pages in [1, 4, 16, 64] {
        let mut compressor = zstd::bulk::Compressor::new(1).expect("a compressor");
        let mut decompressor = zstd::bulk::Decompressor::new().expect("a decompressor");
        let (mut stored, mut times) = (0, Vec::new());
        let mut decoded = vec![0; pages * PAGE_SIZE];
        for frame in content.chunks(pages * PAGE_SIZE).take(64 << 20 >> 12) {
            let compressed = compressor.compress(frame).expect("compressed");
            if compressed.len() > frame.len() - frame.len() / 8 {
                stored += frame.len();
                continue;
            }
            stored += compressed.len();
            times.push(timed(|| {
                decompressor
                    .decompress_to_buffer(&compressed, &mut decoded)
                    .expect("decoded");
            }));
        }
        let whole = content.len().min((64 << 20 >> 12) * pages * PAGE_SIZE);
        let ratio = stored as f64 / whole as f64;
        print!("  frames of {pages} pages: {ratio:.3} of the size");
        match times.is_empty() {
            true => println!(", none compressed"),
            false => println!(", decoded in {:.1} us", median(times).as_secs_f64() * 1e6),
        }
    }
    std::io::stdout().flush().expect("printed");
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
