//! What `ctr events` tells of tasks, reduced to what does not change from run to run.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Where the lines are kept for scripts to look at.
pub const FILE: &str = "/var/lib/parity/events";

/// The topic of a task's last event.
pub const DELETE: &str = "/tasks/delete pid=init";

/// The events of some containers, simplified.
pub struct Told(BTreeMap<String, Vec<String>>);

impl Told {
    /// All but the deletions. runc's shim may end before it has sent that event.
    pub fn without_deletions(&self, sorted: bool) -> String {
        let lists = self.0.iter().map(|(container, list)| {
            let mut list: Vec<_> = list
                .iter()
                .filter(|event| !event.starts_with(DELETE))
                .collect();
            if sorted {
                list.sort();
            }
            let lines: String = list
                .into_iter()
                .map(|event| format!("  {event}\n"))
                .collect();
            format!("{container}:\n{lines}")
        });
        lists.collect()
    }

    /// With the exits of inits that `other` tells of and that are missing here.
    /// runc's shim may end before it has sent that event, too.
    pub fn with_lost_exits(mut self, other: &Told) -> Told {
        for (container, list) in &mut self.0 {
            let exit = format!("/tasks/exit id={container} pid=init");
            let told =
                |list: &[String]| list.iter().rfind(|event| event.starts_with(&exit)).cloned();
            if told(list).is_none() {
                list.extend(other.0.get(container).and_then(|list| told(list)));
            }
        }
        self
    }

    /// The containers whose last event is not a deletion, or that were not
    /// deleted just as often as they were created.
    pub fn not_deleted(&self) -> Vec<&str> {
        let times = |list: &[String], topic: &str| {
            list.iter().filter(|event| event.starts_with(topic)).count()
        };
        let deleted = |list: &[String]| {
            times(list, DELETE) == times(list, "/tasks/create")
                && list.last().is_some_and(|event| event.starts_with(DELETE))
        };
        let wrong = self.0.iter().filter(|(_, list)| !deleted(list));
        wrong.map(|(container, _)| container.as_str()).collect()
    }
}

/// All events since the start of the suite.
pub struct Events {
    lines: Arc<Mutex<Vec<String>>>,
}

impl Events {
    /// Starts listening, for as long as this process lives. A containerd that
    /// goes away is listened to again when it is back.
    pub fn watch() -> Events {
        std::fs::create_dir_all("/var/lib/parity").expect("make a folder in the lab");
        let events = Events {
            lines: Arc::default(),
        };
        let lines = events.lines.clone();
        std::thread::spawn(move || {
            loop {
                listen(&lines);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        events
    }

    /// The task events of the containers whose ids begin with `id`, one list
    /// per container, once the `last` topic is in each, or 5 s have passed.
    pub fn of(&self, id: &str, last: &str) -> Told {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let told = self.now(id);
            let times = |list: &[String], topic: &str| {
                list.iter().filter(|event| event.starts_with(topic)).count()
            };
            let is_over = |list: &Vec<String>| times(list, last) >= times(list, "/tasks/create");
            if told.values().all(is_over) || Instant::now() > end {
                return Told(told);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn now(&self, id: &str) -> BTreeMap<String, Vec<String>> {
        let mut pids = BTreeMap::new();
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in self.lines.lock().expect("the lines").iter() {
            let Some((topic, event)) = task_event(line) else {
                continue;
            };
            let container = event["container_id"].as_str().unwrap_or_default();
            if container.starts_with(id) {
                let told = simplified(topic, &event, &mut pids).replace(id, "ID");
                found
                    .entry(container.replace(id, "ID"))
                    .or_default()
                    .push(told);
            }
        }
        found
    }
}

fn listen(lines: &Mutex<Vec<String>>) {
    let child = Command::new("ctr")
        .arg("events")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.expect("run ctr events");
    let output = child.stdout.take().expect("its output");
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let mut lines = lines.lock().expect("the lines");
        lines.push(line);
        // Scripts look for single words in it: no more than an append is needed.
        let _ = std::fs::write(FILE, lines.join("\n"));
    }
    let _ = child.wait();
}

/// `TIME NAMESPACE TOPIC JSON`, where the time has spaces.
fn task_event(line: &str) -> Option<(&str, Value)> {
    let topic = &line[line.find("/tasks/")?..];
    let (topic, event) = topic.split_once(' ')?;
    Some((topic, serde_json::from_str(event).ok()?))
}

/// The topic and the telling fields; process ids as the process's part in the container.
fn simplified(topic: &str, event: &Value, pids: &mut BTreeMap<u64, String>) -> String {
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    if let Some(pid) = event["pid"].as_u64() {
        match topic {
            "/tasks/create" => pids.insert(pid, "init".to_owned()),
            "/tasks/exec-started" => pids.insert(pid, text("exec_id")),
            _ => None,
        };
    }
    let mut told = topic.to_owned();
    for field in ["id", "exec_id", "checkpoint"] {
        if !text(field).is_empty() {
            told += &format!(" {field}={}", text(field));
        }
    }
    if let Some(pid) = event["pid"].as_u64() {
        told += &format!(" pid={}", pids.get(&pid).map_or("unknown", |name| name));
    }
    if let Some(status) = event["exit_status"].as_u64() {
        told += &format!(" exit_status={status}");
    }
    if let Some(io) = event["io"].as_object() {
        for (name, value) in io {
            let value = value.as_str().map_or(value.to_string(), |path| {
                path.rsplit('/').next().unwrap_or_default().to_owned()
            });
            told += &format!(" {name}={value}");
        }
    }
    told
}
