//! Ports of restored containers that the host answers on.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::verbs::World;
use crate::common::container::Container;
use crate::common::ctr::{self, PYTHON};
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("a_service_answers_on_the_hosts_ports", answers),
        shared("a_port_that_is_taken_changes_nothing", taken),
    ]
}

/// Counts its visitors, in memory, and keeps the connection.
const SERVER: &str = "
import socket, threading
listener = socket.create_server(('127.0.0.1', 80), backlog=50)
count = 0
def serve(visitor):
    global count
    while visitor.recv(100):
        count += 1
        visitor.sendall(b'%d\\n' % count)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],)).start()
";

fn ask(stream: &mut TcpStream) -> u32 {
    stream.write_all(b"?").expect("ask");
    let mut answer = [0; 20];
    let count = stream.read(&mut answer).expect("an answer");
    let answer = String::from_utf8_lossy(&answer[..count]);
    answer.trim().parse().expect("a number")
}

/// A port that was free a moment ago.
fn free() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its number").port()
}

fn visit(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).expect("connect")
}

fn answers(test: &Test) {
    let world = World::new(test);
    let first = free();
    // An annotation does for any client what `--publish` does for `world restore`.
    let annotation = format!("dev.worldshim.publish=127.0.0.1:{first}:80");
    let options = ["--annotation", &annotation];
    let original = Container::run(test, "a", &options, PYTHON, &["python3", "-c", SERVER]);
    ctr::within(10, "it answers", || {
        let mut stream = visit(first);
        let asked = stream
            .write_all(b"?")
            .and_then(|()| stream.read(&mut [0; 9]));
        asked.is_ok_and(|count| count > 0)
    });
    // Frozen while somebody is connected.
    let mut visitor = visit(first);
    let before = ask(&mut visitor);
    world.checkpoint(&original.id, "x");
    assert_eq!(ask(&mut visitor), before + 1, "the visitor notices nothing");

    let mut clones = Vec::new();
    for name in ["b", "c"] {
        let (id, port) = (test.id(name), free());
        let publish = format!("127.0.0.1:{port}:80");
        world.json(&["restore", "x", "--id", &id, "--publish", &publish]);
        let clone = Container { id: id.clone() };
        let threads = "print(len(__import__('os').listdir('/proc/1/task')))";
        ctr::within(5, "who was connected is gone", || {
            clone.exec(&["python3", "-c", threads]) == "1"
        });
        assert_eq!(
            ask(&mut visit(port)),
            before + 1,
            "{id} goes on from the world"
        );
        clones.push((clone, port));
    }
    assert_eq!(ask(&mut visitor), before + 2);
    for (clone, port) in clones {
        let mut open = visit(port);
        ask(&mut open);
        clone.remove();
        assert!(
            TcpStream::connect(("127.0.0.1", port)).is_err(),
            "the port is free again"
        );
        assert_eq!(
            open.read(&mut [0; 9]).unwrap_or(0),
            0,
            "connections end with it"
        );
    }
}

fn taken(test: &Test) {
    let world = World::new(test);
    let container = Container::counter(test, "a", &[]);
    world.checkpoint(&container.id, "x");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let publish = format!("{}:80", taken.local_addr().expect("its number"));
    let id = test.id("b");
    let said = world.refused(4, &["restore", "x", "--id", &id, "--publish", &publish]);
    assert!(said.contains(&publish) && said.contains("in use"), "{said}");
    assert!(!ctr::ok(&["container", "ls", "-q"]).contains(&id));
    assert!(!ctr::ok(&["snapshot", "ls"]).contains(&id));
    let output = world.run(&["restore", "x", "--publish", "80:80/udp"]);
    assert_eq!(output.status.code(), Some(2));
}
