//! How long capture, verification and bring-back of a layer take, beside GNU
//! tar on the same files. Needs root. Prints medians in milliseconds.
//!
//! Every run makes new files beside the old ones: ext4 is many times slower
//! at making files where others were just removed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use worldshim::world::rootfs::{
    DevicePolicy, Layering, Policy, Privileged, Upper, bring_back, capture, same_as, verify,
};

const RUNS: usize = 10;
const LAYERING: Layering = Layering::Overlay { userxattr: false };

fn main() {
    println!("Median milliseconds of {RUNS} runs; `again`: bring back where only times differ");
    print!("{:<26}", "");
    for column in [
        "tar -c", "capture", "verify", "same_as", "tar -x", "bring", "again",
    ] {
        print!(" {column:>8}");
    }
    println!();
    for (name, make) in CASES {
        let base = tempfile::tempdir_in(".").expect("a directory on the disk to measure");
        std::fs::create_dir(base.path().join("from")).unwrap();
        make(&base.path().join("from"));
        measure(name, base.path());
    }
}

type Case = (&'static str, fn(&Path));

const CASES: [Case; 4] = [
    ("empty", |_| {}),
    ("5,000 files, 64 MiB", |at| {
        for number in 0..5000 {
            let dir = at.join(format!("d{}", number / 50));
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join(format!("f{number}")), vec![number as u8; 13_421]).unwrap();
        }
    }),
    ("one file of 256 MiB", |at| {
        std::fs::write(at.join("big"), vec![7; 256 << 20]).unwrap();
    }),
    ("1 GiB, 64 KiB of it data", |at| {
        let file = File::create(at.join("sparse")).unwrap();
        for number in 0..16u64 {
            file.write_all_at(&[1; 4096], number << 26).unwrap();
        }
        file.set_len(1 << 30).unwrap();
    }),
];

fn measure(name: &str, base: &Path) {
    let policy = Policy {
        devices: DevicePolicy::default(),
        privileged: Privileged::Keep,
    };
    let from = base.join("from");
    let upper = Upper::open(&from, LAYERING).unwrap();
    let ours = |run: usize| base.join(format!("ours{run}.tar"));
    let tar = || File::open(ours(0)).unwrap();
    let to = |kind: &str, run: usize| base.join(format!("{kind}{run}"));
    let columns = [
        median(|_| (), |run| pack(&from, &to("gnu.tar", run))),
        median(
            |_| (),
            |run| assert!(capture(&upper, File::create(ours(run)).unwrap()).is_ok()),
        ),
        median(
            |_| (),
            |_| assert!(verify(tar(), LAYERING, &policy, None).is_ok()),
        ),
        median(|_| (), |_| assert!(same_as(&upper, tar()).unwrap())),
        median(
            |run| new_dir(&to("gnu", run)),
            |run| unpack(&ours(0), &to("gnu", run)),
        ),
        median(
            |run| new_dir(&to("ours", run)),
            |run| bring(&to("ours", run), tar(), &policy),
        ),
        median(
            |run| touch(&to("ours", run)),
            |run| bring(&to("ours", run), tar(), &policy),
        ),
    ];
    print!("{name:<26}");
    for milliseconds in columns {
        print!(" {milliseconds:>8.1}");
    }
    println!();
}

fn bring(to: &Path, tar: File, policy: &Policy) {
    let target = Upper::open(to, LAYERING).unwrap();
    bring_back(&target, tar, policy, None).unwrap();
}

const LIKE_OURS: [&str; 4] = [
    "--format=posix",
    "--numeric-owner",
    "--xattrs",
    "--xattrs-include=*",
];

fn pack(from: &Path, tar: &Path) {
    run(Command::new("tar")
        .args(LIKE_OURS)
        .arg("--sparse")
        .arg("-cf")
        .arg(tar)
        .arg("-C")
        .arg(from)
        .arg("."));
}

fn unpack(tar: &Path, to: &Path) {
    run(Command::new("tar")
        .args(LIKE_OURS)
        .arg("-xpf")
        .arg(tar)
        .arg("-C")
        .arg(to));
}

fn touch(dir: &Path) {
    run(Command::new("find")
        .arg(dir)
        .args(["-exec", "touch", "-hd", "2001-01-01", "{}", "+"]));
}

fn run(command: &mut Command) {
    assert!(
        command.status().expect("start the command").success(),
        "{command:?}"
    );
}

fn new_dir(path: &PathBuf) {
    std::fs::create_dir(path).unwrap();
}

/// Median of several runs, in milliseconds; `before` is not measured.
fn median(before: impl Fn(usize), run: impl Fn(usize)) -> f64 {
    let mut times: Vec<f64> = (0..RUNS)
        .map(|number| {
            before(number);
            let start = Instant::now();
            run(number);
            start.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}
