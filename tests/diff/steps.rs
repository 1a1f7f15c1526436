//! A program that does something known between two checkpoints.

use serde_json::{Value, json};

use crate::common::container::Container;
use crate::common::ctr::{self, PYTHON, within};
use crate::common::suite::{Case, Test, shared};
use crate::world::{checkpoint, diff, ok, rows, run};

pub fn cases() -> Vec<Case> {
    vec![shared("what_a_container_did_is_told_exactly", exact)]
}

/// Waits for a signal, changes things, and waits again.
const PROGRAM: &str = "
import ctypes, mmap, os, signal, socket
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
# The kernel writes down for every thread which processor it is on.
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
def write(path, text):
    with open(path, 'w') as file:
        file.write(text)
def fill(memory, page, byte):
    memory[page * 4096:page * 4096 + 4096] = bytes([byte]) * 4096
def address(memory):
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
# Executable, so that the kernel joins it with no other memory.
everything = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
own = mmap.mmap(-1, 256 * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, everything)
common = mmap.mmap(-1, 64 * 4096)
for page in range(256):
    fill(own, page, page % 250 + 1)
for page in range(64):
    fill(common, page, page + 1)
os.mkdir('/data')
for name in ['kept', 'changed', 'removed', 'mode']:
    write('/data/' + name, name)
listener = socket.socket()
write('/addresses', '%x %x' % (address(own), address(common)))
signal.sigwait({signal.SIGUSR1})
for page in range(100, 137):
    fill(own, page, 255)
fill(own, 7, 0)
for page in range(5):
    fill(common, page, 255)
write('/data/changed', 'changed!')
write('/data/new', 'new')
os.remove('/data/removed')
os.chmod('/data/mode', 0o600)
listener.bind(('127.0.0.1', 7777))
listener.listen()
if os.fork() == 0:
    os.setsid()
    write('/done', '')
    signal.sigwait({signal.SIGUSR1})
signal.sigwait({signal.SIGUSR1})
";

fn exact(test: &Test) {
    let container = Container::run(test, "a", &[], PYTHON, &["python3", "-c", PROGRAM]);
    within(20, "addresses", || {
        std::fs::read_to_string(container.path("/addresses")).is_ok_and(|text| text.contains(' '))
    });
    // A first dump leaves its marks, on the container's /tmp for one.
    for name in ["w:0", "w:1"] {
        checkpoint(test, &container, name);
    }
    ctr::ok(&["task", "kill", "-s", "USR1", &container.id]);
    within(20, "the program's step", || {
        container.path("/done").exists()
    });
    for name in ["w:2", "w:3", "w:4"] {
        checkpoint(test, &container, name);
    }
    let changed = diff(test, &["w:1", "w:2"]);
    files(&changed["files"]);
    processes(&changed["processes"]);
    memory(&changed["memory"], &container.read("/addresses"));
    assert_eq!(changed["differs"], json!(true));
    assert_eq!(
        rows(&changed["environment"]["variables"], &["name"]),
        [""; 0]
    );
    assert_eq!(
        rows(&changed["environment"]["settings"], &["name"]),
        [""; 0]
    );
    nothing(test);
    statuses_and_sections(test);
}

fn files(files: &Value) {
    assert_eq!(
        rows(files, &["change", "path", "what"]),
        [
            "changed /data/changed content,time",
            "changed /data/mode mode",
            "added /data/new",
            "removed /data/removed",
            "added /done"
        ]
    );
    assert_eq!(files["same_image"], json!(true));
    let mode = &files["list"][1];
    assert_eq!(mode["before"]["mode"], json!("0644"));
    assert_eq!(mode["after"]["mode"], json!("0600"));
    assert_eq!(files["list"][0]["after"]["size"], json!(8));
}

fn processes(processes: &Value) {
    let [child] = &processes["list"].as_array().expect("a list")[..] else {
        panic!("one process: {processes}");
    };
    assert_eq!(child["change"], json!("added"));
    assert_eq!(child["after"]["parent"], json!(1));
    assert_eq!(child["after"]["command"], json!("python3"));
    assert_eq!(child["after"]["session"], child["pid"]);
    let open = processes["open_files"]["list"].as_array().expect("a list");
    let of = |pid: &Value| {
        open.iter()
            .filter(|open| open["pid"] == *pid)
            .collect::<Vec<_>>()
    };
    let [listener] = &of(&json!(1))[..] else {
        panic!("one file of the first process: {open:?}");
    };
    assert_eq!(listener["after"]["type"], json!("tcp"));
    assert_eq!(listener["after"]["name"], json!("127.0.0.1:7777"));
    assert_eq!(listener["after"]["state"], json!("listen"));
    assert_eq!(listener["before"]["state"], json!("closed"));
    let inherited = of(&child["pid"]);
    // Standard input and output, and the socket.
    assert_eq!(inherited.len(), 4, "{inherited:?}");
    assert!(
        inherited
            .iter()
            .all(|open| open["change"] == json!("added"))
    );
}

fn memory(memory: &Value, addresses: &str) {
    let (own, common) = addresses.split_once(' ').expect("two addresses");
    let list = memory["list"].as_array().expect("a list");
    let region = |pid: u32, address: &str| {
        let start = json!(format!("0x{address}"));
        let is_it = |view: &Value| view["start"] == start;
        let mut found = list.iter().filter(|region| region["pid"] == json!(pid));
        found
            .find(|region| is_it(&region["before"]) || is_it(&region["after"]))
            .cloned()
    };
    let counts = |region: &Value| {
        ["pages_before", "pages_after", "pages_differing"].map(|field| region[field].as_u64())
    };
    let mine = region(1, own).expect("the program's memory");
    assert_eq!(counts(&mine), [Some(256), Some(255), Some(38)], "{mine}");
    assert_eq!(mine["what"], json!(["pages"]));
    assert_eq!(mine["after"]["protection"], json!("rwxp"));
    let shared = region(1, common).expect("shared memory");
    assert_eq!(counts(&shared), [Some(64), Some(64), Some(5)], "{shared}");
    assert_eq!(shared["after"]["protection"], json!("rw-s"));
    // The child's copy.
    let pids: Vec<_> = list
        .iter()
        .filter_map(|region| region["pid"].as_u64())
        .collect();
    let child = *pids.iter().max().expect("regions") as u32;
    assert!(child > 1);
    let copy = region(child, own).expect("the child's memory");
    assert_eq!(counts(&copy), [Some(0), Some(255), Some(255)], "{copy}");
    assert_eq!(copy["change"], json!("added"));
}

/// Between the last two checkpoints the container did nothing. (The first dump of a wait
/// interrupts it, which `errno` shows ever after.)
fn nothing(test: &Test) {
    let same = diff(test, &["w:3", "w:4"]);
    assert_eq!(same["differs"], json!(false), "{same}");
    assert_eq!(same["memory"]["pages_differing"], json!(0));
    assert_eq!(
        same["memory"]["pages_before"],
        same["memory"]["pages_after"]
    );
    assert_eq!(ok(test, &["diff", "w:3", "w:4", "--exit-code"]), "");
}

fn statuses_and_sections(test: &Test) {
    let words = ok(test, &["diff", "w:1", "w:2"]);
    for line in ["files: 2 added, 2 changed, 1 removed", "  C /data/mode"] {
        assert!(words.contains(line), "{line}: {words}");
    }
    let status = |words: &[&str]| run(test, words).status.code();
    assert_eq!(status(&["diff", "w:1", "w:2", "--exit-code"]), Some(1));
    assert_eq!(
        status(&["diff", "w:1", "w:2", "--exit-code", "--env"]),
        Some(0)
    );
    assert_eq!(status(&["diff", "w:1", "missing", "--exit-code"]), Some(3));
    let only = diff(test, &["w:1", "w:2", "--files"]);
    assert!(only.get("files").is_some() && only.get("memory").is_none());
    // And the other way round.
    let back = diff(test, &["w:2", "w:1", "--files", "--processes"]);
    assert_eq!(
        rows(&back["files"], &["change", "path"])[2..4],
        ["removed /data/new", "added /data/removed"]
    );
    assert_eq!(rows(&back["processes"], &["change"]), ["removed"]);
}
