//! Running a case with one runtime, and comparing it with the other.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::RwLock;

use libtest_mimic::Failed;

use super::case::Case;
use super::events::{self, DELETE, Events, Told};
use super::leftovers::{self, Leftovers};

/// Held for writing by a case that is to run alone.
static CONTAINERD: RwLock<()> = RwLock::new(());

/// One of the two runtimes.
struct Runtime {
    name: &'static str,
    /// Not a hexadecimal digit: ids are looked for in all sorts of names.
    letter: char,
    /// The last event that is sure to come.
    last_event: &'static str,
}

const THEIRS: Runtime = Runtime {
    name: "io.containerd.runc.v2",
    letter: 'r',
    last_event: "/tasks/exit id=ID",
};
const OURS: Runtime = Runtime {
    name: "io.containerd.world.v1",
    letter: 'w',
    last_event: DELETE,
};

/// What a case showed with one runtime.
struct Side {
    stdout: String,
    stderr: String,
    events: Told,
    left: Leftovers,
}

/// Runs a container, and leaves one that keeps the image's snapshot with other
/// owners: two clients at once would both make it, and one of them fail.
pub fn warm_up() {
    let image = "docker.io/library/busybox:latest";
    let run = |flags: &[&str], command: &[&str]| {
        let run = Command::new("ctr")
            .arg("run")
            .args(flags)
            .args([image])
            .args(command)
            .stdin(Stdio::null())
            .status();
        assert!(
            run.is_ok_and(|status| status.success()),
            "containerd does not run containers"
        );
    };
    run(&["--rm"], &["warm-up", "true"]);
    let maps = [
        "-d",
        "--uidmap",
        "0:100000:65536",
        "--gidmap",
        "0:200000:65536",
    ];
    run(&maps, &["keeper", "sleep", "3600"]);
}

/// Runs `case` with both runtimes. An error tells all that is different.
pub fn compare(number: usize, case: &Case, events: &Events) -> Result<(), Failed> {
    let (theirs, ours) = if case.alone {
        let _alone = CONTAINERD
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        (
            run(&THEIRS, number, case, events),
            run(&OURS, number, case, events),
        )
    } else {
        let _shared = CONTAINERD
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        (
            run(&THEIRS, number, case, events),
            run(&OURS, number, case, events),
        )
    };
    let theirs = Side {
        events: theirs.events.with_lost_exits(&ours.events),
        ..theirs
    };
    let mut report = String::new();
    let expected = case.ours.map_or(case.shows, |difference| difference.shows);
    differ(
        &mut report,
        "output with runc's runtime",
        case.shows.trim(),
        &theirs.stdout,
    );
    differ(
        &mut report,
        "output with ours",
        expected.trim(),
        &ours.stdout,
    );
    if case.ours.is_none() {
        differ(
            &mut report,
            "errors (runc's, ours)",
            &theirs.stderr,
            &ours.stderr,
        );
    }
    if case.ours.is_none_or(|difference| difference.same_events) {
        let told = |side: &Side| side.events.without_deletions(case.unordered);
        let (theirs, ours) = (told(&theirs), told(&ours));
        differ(&mut report, "events (runc's, ours)", &theirs, &ours);
    }
    let undeleted = ours.events.not_deleted();
    if !undeleted.is_empty() {
        let _ = writeln!(
            report,
            "ours lack a deletion event, or have one too many: {undeleted:?}"
        );
    }
    if !ours.left.is_empty() {
        let _ = write!(
            report,
            "left behind by ours:\n{}by runc's:\n{}",
            ours.left, theirs.left
        );
    }
    if report.is_empty() {
        return Ok(());
    }
    for (whose, side) in [("runc's", &theirs), ("our", &ours)] {
        if !side.stderr.is_empty() {
            let _ = write!(report, "{whose} stderr:\n{}\n", indented(&side.stderr));
        }
    }
    if let Some(difference) = case.ours {
        let _ = writeln!(report, "ours is to differ: {}", difference.why);
    }
    Err(report.into())
}

fn run(runtime: &Runtime, number: usize, case: &Case, events: &Events) -> Side {
    let needle = format!("{}{number}x", runtime.letter);
    let id = format!("{needle}{}", case.name);
    let dir = format!("/var/lib/parity/{id}");
    fs::create_dir_all(&dir).expect("make a folder in the lab");
    // Files, not pipes: what a script leaves running must not keep the suite waiting.
    let (out, err) = (format!("{dir}.out"), format!("{dir}.err"));
    let script = |text: &str, seconds: &str| -> ExitStatus {
        let append = |path: &str| {
            File::options()
                .append(true)
                .create(true)
                .open(path)
                .expect("a file for output")
        };
        Command::new("timeout")
            .args(["-s", "KILL", seconds, "bash", "-c"])
            .arg(format!("{}\n{text}", include_str!("prelude.sh")))
            .current_dir(&dir)
            .env("RT", runtime.name)
            .env("ID", &id)
            .env("DIR", &dir)
            .env("EVENTS", events::FILE)
            .env(
                "TERMINAL",
                concat!(env!("CARGO_MANIFEST_DIR"), "/tests/parity/terminal.py"),
            )
            .env("RPC", std::env::current_exe().expect("our own path"))
            .stdin(Stdio::null())
            .stdout(append(&out))
            .stderr(append(&err))
            .status()
            .expect("run bash")
    };
    let status = script(case.script, "40");
    let normal = |path: &str| normalised(&fs::read(path).expect("the output"), &id, runtime.name);
    let mut stdout = normal(&out);
    if !status.success() {
        let _ = write!(stdout, "\n(the script: {status})");
    }
    script("clean_up", "20");
    let left = leftovers::settled(|| Leftovers::of(&needle));
    let _ = fs::remove_dir_all(&dir);
    Side {
        stdout,
        stderr: normal(&err),
        events: events.of(&id, runtime.last_event),
        left,
    }
}

/// Without the id, the runtime's name, and times in containerd's log lines.
fn normalised(bytes: &[u8], id: &str, runtime: &str) -> String {
    let text = String::from_utf8_lossy(bytes)
        .replace(id, "ID")
        .replace(runtime, "RUNTIME");
    let line = |line: &str| match line
        .strip_prefix("time=\"")
        .and_then(|rest| rest.split_once('"'))
    {
        Some((_, rest)) => format!("time{rest}"),
        None => line.to_owned(),
    };
    text.split('\n')
        .map(line)
        .collect::<Vec<_>>()
        .join("\n")
        .trim()
        .to_owned()
}

fn differ(report: &mut String, what: &str, expected: &str, found: &str) {
    if expected == found {
        return;
    }
    let _ = writeln!(report, "{what}:");
    let (old, new): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
    let common = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let rest = (old.len().min(new.len())) - common;
    let tail = old
        .iter()
        .rev()
        .zip(new.iter().rev())
        .take(rest)
        .take_while(|(a, b)| a == b)
        .count();
    for line in &old[..common] {
        let _ = writeln!(report, "    {line}");
    }
    for line in &old[common..old.len() - tail] {
        let _ = writeln!(report, "  - {line}");
    }
    for line in &new[common..new.len() - tail] {
        let _ = writeln!(report, "  + {line}");
    }
    for line in &old[old.len() - tail..] {
        let _ = writeln!(report, "    {line}");
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
