//! How long capture, verification and bring-back take, beside GNU tar on the
//! same files. Needs root. Prints medians in milliseconds.

use std::path::Path;
use std::process::Command;
use std::time::Instant;
use worldshim::world::rootfs::{
    DevicePolicy, Layering, Policy, Privileged, Upper, bring_back, capture, same_as, verify,
};

const RUNS: usize = 10;

fn main() {
    let base = tempfile::tempdir_in(".").expect("a directory on the disk to measure");
    println!(
        "{:<28} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "ms", "tar -c", "capture", "verify", "same_as", "bring", "tar -x"
    );
    for (name, make) in CASES {
        let from = base.path().join(name);
        std::fs::create_dir(&from).unwrap();
        make(&from);
        measure(name, base.path(), &from);
    }
}

type Case = (&'static str, fn(&Path));

const CASES: [Case; 4] = [
    ("empty", |_| {}),
    ("5000 files, 64 MiB", |at| {
        for number in 0..5000 {
            let dir = at.join(format!("d{}", number / 50));
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join(format!("f{number}")), vec![number as u8; 13_421]).unwrap();
        }
    }),
    ("one file, 1 GiB", |at| {
        let block = vec![7; 1 << 20];
        let mut file = std::fs::File::create(at.join("big")).unwrap();
        for _ in 0..1024 {
            std::io::Write::write_all(&mut file, &block).unwrap();
        }
    }),
    ("1 GiB, 64 KiB of it data", |at| {
        let file = std::fs::File::create(at.join("sparse")).unwrap();
        for number in 0..16u64 {
            std::os::unix::fs::FileExt::write_all_at(&file, &[1; 4096], number << 26).unwrap();
        }
        file.set_len(1 << 30).unwrap();
    }),
];

fn measure(name: &str, base: &Path, from: &Path) {
    let layering = Layering::Overlay { userxattr: false };
    let policy = Policy {
        devices: DevicePolicy::default(),
        privileged: Privileged::Keep,
    };
    let upper = Upper::open(from, layering).unwrap();
    let tar = base.join("rootfs.tar");
    let to = base.join("to");
    std::fs::create_dir_all(&to).unwrap();
    let target = Upper::open(&to, layering).unwrap();
    // Writing over an old file would make the filesystem wait for the disk.
    let remove = || drop(std::fs::remove_file(&tar));
    let open = || std::fs::File::open(&tar).unwrap();
    let columns = [
        median(remove, || {
            gnu_tar(&["--sparse", "-cf", &tar.display().to_string(), "-C"], from)
        }),
        median(remove, || {
            capture(&upper, std::fs::File::create(&tar).unwrap()).unwrap();
        }),
        median(
            || (),
            || {
                verify(open(), layering, &policy, None).unwrap();
            },
        ),
        median(|| (), || assert!(same_as(&upper, open()).unwrap())),
        median(
            || clear(&to),
            || {
                bring_back(&target, open(), &policy, None).unwrap();
            },
        ),
        median(
            || clear(&to),
            || gnu_tar(&["-xpf", &tar.display().to_string(), "-C"], &to),
        ),
    ];
    let columns: String = columns.iter().map(|ms| format!(" {ms:>9.1}")).collect();
    println!("{name:<28}{columns}");
    clear(&to);
}

fn gnu_tar(args: &[&str], dir: &Path) {
    let shared = [
        "--format=posix",
        "--numeric-owner",
        "--xattrs",
        "--xattrs-include=*",
    ];
    let create = args.contains(&"--sparse");
    let mut command = Command::new("tar");
    command.args(shared).args(args).arg(dir);
    if create {
        command.arg(".");
    }
    assert!(command.status().expect("run tar").success());
}

fn clear(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }
}

/// Median of several runs, in milliseconds; `before` is not measured.
fn median(before: impl Fn(), run: impl Fn()) -> f64 {
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            before();
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64() * 1000.0
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}
