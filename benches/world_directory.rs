//! What writing and verifying a world directory costs: `cargo bench --bench world_directory`.
//! Takes the directory to work in (a tmpfs, a disk) as its first argument.
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use worldshim::world::directory::WorldDirWriter;
use worldshim::world::env::EnvPart;
use worldshim::world::follow::ImageHasher;
use worldshim::world::host::HostFacts;
use worldshim::world::manifest::*;
use worldshim::world::secrets::{FingerprintKey, Redactor, Rules, SecretsConfig};
use worldshim::world::verify::verify;

const MIB: usize = 1 << 20;
const ROUNDS: usize = 5;

fn main() {
    let root = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with("--"))
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let root = tempfile::tempdir_in(root).unwrap();
    let host = HostFacts::gather(Some("4.1.1")).unwrap();
    let memory: Vec<u8> = (0..256 * MIB).map(|n| (n ^ (n >> 12)) as u8).collect();

    let plain = median(|| write_pages(&root.path().join("plain"), &memory));
    report("write 256 MiB of pages, nothing else", plain);
    let path = root.path().join("world");
    let mut lag = Vec::new();
    let followed = median(|| {
        let (written, rest) = write_followed(&path, &memory, &host);
        lag.push(rest);
        written
    });
    report("the same, hashed at the same time", followed);
    lag.sort();
    report("  and from its end to all hashes known", lag[lag.len() / 2]);
    let verified = median(|| time(|| drop(verify(&path, &host).unwrap())));
    report("verify that world", verified);
    let rate = 256.0 * MIB as f64 / verified.as_secs_f64() / 1e9;
    println!("  {rate:.2} GB/s");
    small_things();
}

fn small_things() {
    let config = SecretsConfig::default();
    report(
        "compile the secrets' rules",
        median(|| time(|| drop(Rules::new(&config).unwrap()))),
    );
    let pid = std::process::id() as i32;
    let spec = Default::default();
    let gather = || drop(EnvPart::gather(pid, &spec).unwrap());
    report("gather the env part", median(|| time(gather)));
    let mut part = EnvPart::gather(pid, &spec).unwrap();
    let rules = Rules::new(&config).unwrap();
    let mut redactor = Redactor::with_key(rules, FingerprintKey::from_bytes([0; 32]));
    report("redact it", median(|| time(|| part.redact(&mut redactor))));
    report(
        "gather the host's facts",
        median(|| time(|| drop(HostFacts::gather(None).unwrap()))),
    );
}

fn write_pages(path: &Path, memory: &[u8]) -> Duration {
    let _ = std::fs::remove_dir_all(path);
    std::fs::create_dir(path).unwrap();
    time(|| append(&path.join("pages-1.img"), memory))
}

/// Writes as CRIU does: appends in pieces.
fn append(path: &Path, memory: &[u8]) {
    let mut file = std::fs::File::create(path).unwrap();
    memory
        .chunks(MIB / 2)
        .for_each(|piece| file.write_all(piece).unwrap());
}

/// Returns how long the writing took, and how long after it the hashes were there.
fn write_followed(path: &Path, memory: &[u8], host: &HostFacts) -> (Duration, Duration) {
    let _ = std::fs::remove_dir_all(path);
    let writer = WorldDirWriter::create(path).unwrap();
    let hasher = ImageHasher::start(writer.dir()).unwrap();
    let written = time(|| append(&path.join("pages-1.img"), memory));
    for n in 0..40 {
        std::fs::write(path.join(format!("core-{n}.img")), [0; 4000]).unwrap();
    }
    let mut files = Vec::new();
    let rest = time(|| files = hasher.finish().unwrap());
    let mut manifest = manifest(host);
    manifest.parts = vec![Part::new(PartKind::Processes, files)];
    writer.commit(&manifest, false).unwrap();
    (written, rest)
}

fn manifest(host: &HostFacts) -> Manifest {
    let golden = include_bytes!("../tests/golden/world-v1/world.json");
    let mut manifest = Manifest::parse(golden).unwrap();
    manifest.host = host.clone();
    manifest
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn median(mut work: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<_> = (0..ROUNDS).map(|_| work()).collect();
    times.sort();
    times[ROUNDS / 2]
}

fn report(what: &str, time: Duration) {
    println!("{:9.3} ms  {what}", time.as_secs_f64() * 1e3);
}
