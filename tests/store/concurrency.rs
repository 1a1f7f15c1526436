//! Many at once: threads of one process, and processes that are killed.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use worldshim::store::{GcOptions, Store};

use crate::common::{Home, reference};
use crate::life::{Numbers, User, read_whole};

const STORE_VARIABLE: &str = "WORLDSHIM_TEST_STORE";

/// Plays back what users said: the worlds that must be there, by name.
fn expected(said: &str) -> BTreeMap<String, String> {
    let mut worlds = BTreeMap::new();
    // The last line may be cut short.
    for line in said
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
    {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            ["published", name, digest] => {
                drop(worlds.insert(name.to_string(), digest.to_string()))
            }
            ["removing", name] => drop(worlds.remove(*name)),
            _ => {}
        }
    }
    worlds
}

/// The store is sound, and has every world that it said it had.
fn must_be_sound(store: &Store, said: &str) {
    let report = Store::fsck(store.path(), &|_| {}).expect("a check");
    assert!(report.is_clean(), "{:#?}", report.findings);
    for (name, digest) in expected(said) {
        let found = store.resolve(&reference(&name)).expect("a world");
        assert_eq!(found.to_string(), digest, "{name}");
        read_whole(store, &found);
    }
}

#[test]
fn threads_do_not_disturb_each_other() {
    let home = Home::new();
    let until = Instant::now() + Duration::from_secs(3);
    let said: Vec<_> = std::thread::scope(|scope| {
        let users: Vec<_> = (0..6)
            .map(|id| {
                let store = home.store.clone();
                scope.spawn(move || {
                    let mut user = User::new(id, id + 1, Vec::new());
                    while Instant::now() < until {
                        user.step(&store);
                    }
                    String::from_utf8(user.says).expect("text")
                })
            })
            .collect();
        users
            .into_iter()
            .map(|user| user.join().expect("a user"))
            .collect()
    });
    assert!(said.concat().lines().count() > 50);
    must_be_sound(&home.store, &said.concat());
    home.store.gc(&GcOptions::default()).expect("a sweep");
    let report = Store::fsck(home.store.path(), &|_| {}).expect("a check");
    assert_eq!(report.findings, []);
}

/// Runs as a child of the tests here.
#[test]
#[ignore = "a child of the other tests"]
fn user_process() {
    let path = std::env::var_os(STORE_VARIABLE).expect("run by another test");
    let store = Store::open(path.as_ref()).expect("a store");
    let seed = std::process::id().into();
    let mut user = User::new(seed, seed, std::io::stdout());
    loop {
        user.step(&store);
    }
}

fn start_user(store: &Store) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args([
            "--exact",
            "concurrency::user_process",
            "--ignored",
            "--nocapture",
        ])
        .env(STORE_VARIABLE, store.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start a user")
}

fn end(mut child: Child) -> String {
    child.kill().expect("kill");
    let mut said = String::new();
    let mut stdout = child.stdout.take().expect("its words");
    stdout.read_to_string(&mut said).expect("its words");
    let mut complaints = String::new();
    let mut stderr = child.stderr.take().expect("its complaints");
    stderr
        .read_to_string(&mut complaints)
        .expect("its complaints");
    assert_eq!(complaints, "", "it failed by itself");
    let status = child.wait().expect("its end");
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    assert_eq!(signal, Some(9), "{said}");
    said
}

#[test]
fn killed_processes_leave_a_sound_store() {
    let home = Home::new();
    let mut numbers = Numbers(7);
    let mut said = String::new();
    for _ in 0..12 {
        let users: Vec<_> = (0..3).map(|_| start_user(&home.store)).collect();
        for user in users {
            let pause = Duration::from_millis(100 + numbers.below(150));
            std::thread::sleep(pause);
            said += &end(user);
        }
        must_be_sound(&home.store, &said);
    }
    assert!(said.lines().count() > 50, "they got to work");
    home.store.gc(&GcOptions::default()).expect("a sweep");
    let report = Store::fsck(home.store.path(), &|_| {}).expect("a check");
    assert_eq!(report.findings, [], "nothing of the dead is left");
    must_be_sound(&home.store, &said);
}
