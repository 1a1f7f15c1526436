//! Comparisons of crafted worlds.

use std::sync::Arc;

use super::processes::pairs;
use super::regions::matched;
use super::{Change, environment, open_files, processes};
use crate::criu::dumped::{Backing, File, OpenFile, Process, Region, State};
use crate::world::env::EnvPart;
use crate::world::raw_text::RawText;

fn environment_of(variables: &[(&str, &str)]) -> EnvPart {
    let ids = r#"{"effective":0,"filesystem":0,"real":0,"saved":0}"#;
    let none = "0000000000000000";
    let live: Vec<_> = variables
        .iter()
        .map(|(name, value)| serde_json::json!({"name": name, "value": value}))
        .collect();
    let ids: serde_json::Value = serde_json::from_str(ids).unwrap();
    let part = serde_json::json!({
        "capabilities": {"ambient": none, "bounding": none, "effective": none,
            "inheritable": none, "permitted": none},
        "cwd": "/", "domainname": "", "gid": ids, "groups": [0], "hostname": "one",
        "limits": {"RLIMIT_NOFILE": {"hard": null, "soft": 1024}}, "live": live,
        "namespaces": {"net": 1}, "noNewPrivs": true, "seccomp": 2, "spec": [], "uid": ids,
        "umask": "0022",
    });
    EnvPart::parse(part.to_string().as_bytes()).unwrap()
}

#[test]
fn variables_and_settings() {
    let before = environment_of(&[("A", "1"), ("B", "2"), ("B", "3"), ("C", "4")]);
    let mut after = environment_of(&[("A", "1"), ("B", "2"), ("B", "5"), ("D", "6")]);
    after.hostname = "two".to_owned();
    after.namespaces.insert("net".to_owned(), 2);
    after.limits.get_mut("RLIMIT_NOFILE").unwrap().soft = Some(9);
    let diff = environment::compare(&before, &after);
    let said: Vec<_> = diff
        .variables
        .list
        .iter()
        .map(|variable| {
            let value = |value: &Option<RawText>| value.as_ref().map(RawText::to_string);
            let name = format!("{}{}", variable.name, variable.occurrence);
            (name, value(&variable.before), value(&variable.after))
        })
        .collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        said,
        [
            ("B1".to_owned(), some("3"), some("5")),
            ("C0".to_owned(), some("4"), None),
            ("D0".to_owned(), None, some("6"))
        ]
    );
    let names: Vec<_> = diff
        .settings
        .list
        .iter()
        .map(|setting| &setting.name)
        .collect();
    assert_eq!(names, ["hostname", "limits.RLIMIT_NOFILE.soft"]);
    assert!(!environment::compare(&before, &before).differs());
}

#[test]
fn what_was_redacted_is_not_shown() {
    let marker = |digit: char| format!("<redacted:hmac-sha256:{}>", digit.to_string().repeat(16));
    let (one, two) = (marker('1'), marker('2'));
    for (before, after) in [
        (one.as_str(), two.as_str()),
        (&one, "plain"),
        ("plain", &two),
    ] {
        let before = environment_of(&[("TOKEN", before)]);
        let after = environment_of(&[("TOKEN", after)]);
        let diff = environment::compare(&before, &after);
        let json = serde_json::to_string(&diff).unwrap();
        assert!(!json.contains("plain") && !json.contains("hmac"), "{json}");
        let variable = &diff.variables.list[0];
        assert!(variable.redacted && variable.change == Change::Changed);
    }
    let same = environment_of(&[("TOKEN", &one)]);
    assert!(!environment::compare(&same, &same).differs());
}

fn region(start: u64, end: u64, name: &str) -> Region {
    Region {
        start: start << 12,
        end: end << 12,
        protection: 3,
        shared: false,
        name: Arc::from(name.as_bytes()),
        backing: Backing::Private,
    }
}

#[test]
fn regions_are_matched() {
    let before = [
        region(1, 3, "same"),
        region(5, 9, "grows up"),
        region(20, 25, "grows down"),
        region(30, 33, "moves"),
        region(40, 43, "moves"),
        region(50, 51, "goes"),
    ];
    let after = [
        region(1, 3, "same"),
        region(5, 10, "grows up"),
        region(18, 25, "grows down"),
        region(60, 63, "moves"),
        region(70, 73, "moves"),
        region(90, 92, "comes"),
    ];
    let pages = |region: Option<&Region>| region.map(|region| region.start >> 12);
    let found: Vec<_> = matched(&before, &after)
        .iter()
        .map(|pair| (pages(pair.before), pages(pair.after), pair.moved))
        .collect();
    assert_eq!(
        found,
        [
            (Some(1), Some(1), false),
            (Some(5), Some(5), false),
            (Some(20), Some(18), false),
            (Some(30), Some(60), true),
            (Some(40), Some(70), true),
            (Some(50), None, false),
            (None, Some(90), false)
        ]
    );
}

fn process(pid: u32, files: Vec<(u32, File)>) -> Process {
    Process {
        pid,
        parent: 0,
        group: 1,
        session: 1,
        threads: 1,
        command: b"sh".to_vec(),
        state: State::Alive,
        uid: Some(0),
        gid: Some(0),
        executable: None,
        cwd: None,
        root: None,
        regions: Vec::new(),
        files: files
            .into_iter()
            .map(|(fd, file)| OpenFile {
                fd,
                close_on_exec: false,
                file: Arc::new(file),
            })
            .collect(),
    }
}

fn end(kind: &'static str, inode: u32, peer: Option<u32>) -> File {
    File {
        kind,
        inode: Some(inode),
        peer,
        ..File::default()
    }
}

#[test]
fn the_kernels_numbers_of_pipes_and_sockets_do_not_count() {
    let world = |base: u32| {
        let pipe = || end("pipe", base, None);
        let sockets = |a, b| end("unix-stream", base + a, Some(base + b));
        vec![
            process(
                1,
                vec![
                    (3, pipe()),
                    (4, pipe()),
                    (5, sockets(1, 2)),
                    (6, sockets(2, 1)),
                ],
            ),
            process(2, vec![(3, pipe())]),
        ]
    };
    let (before, after) = (world(10), world(500));
    assert!(!processes::compare(&before, &after).differs());
    // Another pipe, and a socket that leads elsewhere.
    let mut after = world(500);
    after[1].files[0].file = Arc::new(end("pipe", 77, None));
    after[0].files[2].file = Arc::new(end("unix-stream", 501, Some(9)));
    let listing = open_files::compare(&before, &after, &pairs(&before, &after));
    let said: Vec<_> = listing
        .list
        .iter()
        .map(|open| {
            let peer = open.after.as_ref().and_then(|view| view.peer.as_deref());
            (
                open.pid,
                open.fd,
                open.what.join(","),
                peer.unwrap_or_default(),
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            (1, 5, "peer".to_owned(), "outside"),
            (2, 3, "peer".to_owned(), "2/3")
        ]
    );
}

#[test]
fn processes_come_go_and_change() {
    let before = [
        process(1, vec![]),
        process(2, vec![(0, end("pipe", 1, None))]),
    ];
    let mut after = [process(1, vec![]), process(3, vec![])];
    after[0].command = b"ash".to_vec();
    after[0].state = State::Stopped;
    let diff = processes::compare(&before, &after);
    let said: Vec<_> = diff
        .list
        .list
        .iter()
        .map(|it| (it.pid, it.change, it.what.join(",")))
        .collect();
    assert_eq!(
        said,
        [
            (1, Change::Changed, "command,state".to_owned()),
            (2, Change::Removed, String::new()),
            (3, Change::Added, String::new())
        ]
    );
    assert_eq!(
        (diff.open_files.removed, diff.open_files.list[0].fd),
        (1, 0)
    );
}
