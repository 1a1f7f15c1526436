//! TCP connections and network namespaces.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

use serde_json::json;

use worldshim::runtime::network::Snapshot;
use worldshim::world::processes::{self, DumpParameters};

use crate::container::{Container, Place, eventually, freeze, read_until, run};
use crate::python;
use crate::steps::{dump, restore};

const TALK: &str = "
import socket, threading, time
server = socket.create_server(('127.0.0.1', 8080))
def serve():
    while True:
        connection, _ = server.accept()
        def answer(connection=connection):
            while True:
                data = connection.recv(100)
                if not data: return
                connection.sendall(b'answer to ' + data)
        threading.Thread(target=answer, daemon=True).start()
threading.Thread(target=serve, daemon=True).start()
inner = socket.create_connection(('127.0.0.1', 8080))
";

#[test]
fn connections_inside_live_on_in_two_clones() {
    let script = format!(
        "{TALK}
n = 0
while True:
    n += 1
    inner.sendall(b'%d' % n)
    print(inner.recv(100).decode())
    time.sleep(0.02)
"
    );
    let (original, output) = python(&script).start();
    read_until(&output, "answer to 3\n");
    let dumped = dump(&original, &original.place.images());
    assert_eq!(
        (dumped.parameters.tcp.inside, dumped.parameters.tcp.outside),
        (2, 0)
    );
    for _ in 0..2 {
        let (clone, output, _) = restore(
            &original,
            &dumped.parameters,
            Place::beside(&original.place),
        );
        read_until(&output, "answer to 9\n");
        let again = dump(&clone, &clone.place.images());
        let (_second, output, _) = restore(&clone, &again.parameters, Place::beside(&clone.place));
        let text = read_until(&output, "answer to ");
        assert!(!text.contains("Error"), "{text}");
    }
    freeze(&original.place.freezer(), false);
    read_until(&output, "answer to 9\n");
}

#[test]
fn a_connection_to_outside_is_closed_and_one_inside_lives_on() {
    let script = format!(
        "{TALK}
outer = socket.create_connection(('10.77.0.1', 9090))
outer.sendall(b'hello')
print('outer', outer.recv(100).decode())
n = 0
while True:
    n += 1
    inner.sendall(b'%d' % n)
    print(inner.recv(100).decode())
    try:
        outer.sendall(b'ping'); outer.settimeout(5)
        print('outer', outer.recv(100) or 'closed')
    except OSError as error: print('outer', type(error).__name__)
    time.sleep(0.02)
"
    );
    let network = Network::new("77");
    let listener = TcpListener::bind("10.77.0.1:9090").unwrap();
    let serve = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut buffer = [0; 100];
        while let Ok(1..) = connection.read(&mut buffer) {
            connection.write_all(b"pong").unwrap();
        }
    });
    let mut place = python(&script);
    place.join("network", &network.path());
    let (original, output) = place.start();
    read_until(&output, "outer b'pong'\n");
    let dumped = dump(&original, &original.place.images());
    assert_eq!(
        (dumped.parameters.tcp.inside, dumped.parameters.tcp.outside),
        (2, 1)
    );

    let other = Network::new("78");
    let mut place = Place::beside(&original.place);
    place.join("network", &other.path());
    let (_clone, clone_output, _) = restore(&original, &dumped.parameters, place);
    let text = read_until(&clone_output, "outer");
    let text = text + &read_until(&clone_output, "answer to 12\n");
    assert!(!text.contains("pong"), "{text}");

    // The original's connection is none the worse.
    freeze(&original.place.freezer(), false);
    read_until(&output, "outer b'pong'\n");
    drop(original);
    serve.join().unwrap();
}

#[test]
fn a_shared_network_namespace_is_entered_again() {
    let (one, two) = (Network::new("79"), Network::new("80"));
    let mut place = python(
        "import time, socket\ns = socket.create_server(('0.0.0.0', 7000))\nprint('ready')\nwhile True: s.accept()[0].sendall(b'here')",
    );
    place.join("network", &one.path());
    let (original, output) = place.start();
    read_until(&output, "ready");
    let dumped = dump(&original, &original.place.images());
    let mut place = Place::beside(&original.place);
    place.join("network", &two.path());
    let (_clone, _output, _) = restore(&original, &dumped.parameters, place);
    freeze(&original.place.freezer(), false);
    for address in ["10.79.0.2:7000", "10.80.0.2:7000"] {
        let mut text = String::new();
        std::net::TcpStream::connect(address)
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "here");
    }
}

/// A network namespace with a veth pair to ours: we are .1, it is .2.
struct Network {
    number: String,
}

impl Network {
    fn new(number: &str) -> Network {
        crate::container::require_lab();
        let script = format!(
            "ip netns add n{number}; ip link add v{number} type veth peer name eth0 netns n{number}
             ip addr add 10.{number}.0.1/24 dev v{number}; ip link set v{number} up
             ip -n n{number} addr add 10.{number}.0.2/24 dev eth0; ip -n n{number} link set eth0 up
             ip -n n{number} link set lo up"
        );
        run(Command::new("sh").args(["-ec", &script]));
        Network {
            number: number.to_owned(),
        }
    }

    fn path(&self) -> serde_json::Value {
        json!(format!("/run/netns/n{}", self.number))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let name = format!("n{}", self.number);
        let _ = Command::new("ip").args(["netns", "del", &name]).status();
    }
}

fn place_of_network(parameters: &DumpParameters) -> processes::Place {
    let network = parameters.namespaces.iter().find(|n| n.kind == "net");
    network.unwrap().place
}

const SERVE: &str = "
import socket, threading
server = socket.create_server(('127.0.0.1', 7000))
print('ready')
while True: server.accept()[0].sendall(b'here')
";

/// What a program in the container hears from the server.
fn ask(container: &Container) -> String {
    container.exec("nc 127.0.0.1 7000 </dev/null")
}

#[test]
fn a_network_that_is_as_new_is_made_and_not_captured() {
    let mut place = python(SERVE);
    place.spec["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "81"});
    let (original, output) = place.start();
    read_until(&output, "ready");
    assert_eq!(ask(&original), "here");
    let dumped = dump(&original, &original.place.images());
    assert_eq!(
        place_of_network(&dumped.parameters),
        processes::Place::AsNew
    );
    let (clone, _output, _) = restore(
        &original,
        &dumped.parameters,
        Place::beside(&original.place),
    );
    assert_eq!(ask(&clone), "here");
    let network = |container: &Container| {
        std::fs::read_link(format!("/proc/{}/ns/net", container.pid)).unwrap()
    };
    assert_ne!(network(&clone), network(&original));
    let port = clone.exec("cat /proc/sys/net/ipv4/ip_unprivileged_port_start");
    assert_eq!(port.trim(), "81");
    let again = dump(&clone, &clone.place.images());
    assert_eq!(place_of_network(&again.parameters), processes::Place::AsNew);
    let (second, _output, _) = restore(&clone, &again.parameters, Place::beside(&clone.place));
    assert_eq!(ask(&second), "here");
}

#[test]
fn a_network_with_something_in_it_is_captured() {
    let (original, output) = python(SERVE).start();
    read_until(&output, "ready");
    original.exec("ip addr add 10.81.0.1/32 dev lo");
    let dumped = dump(&original, &original.place.images());
    assert_eq!(place_of_network(&dumped.parameters), processes::Place::Own);
    let (clone, _output, _) = restore(
        &original,
        &dumped.parameters,
        Place::beside(&original.place),
    );
    assert_eq!(ask(&clone), "here");
    assert!(clone.exec("ip addr").contains("10.81.0.1/32"));
}

#[test]
fn whatever_is_done_to_a_network_is_noticed() {
    let spec = python("").spec();
    let changes = [
        ("nothing", "true"),
        ("an address", "ip addr add 10.1.2.3/32 dev lo"),
        ("an address less", "ip addr del 127.0.0.1/8 dev lo"),
        ("an interface", "ip link add one type veth peer name two"),
        ("loopback down", "ip link set lo down"),
        ("another MTU", "ip link set lo mtu 1400"),
        ("a route", "ip route add blackhole 10.9.0.0/16"),
        ("a route, IPv6", "ip -6 route add blackhole fd00::/64"),
        ("a rule", "ip rule add from 10.9.9.9 table 77"),
        ("a table, nftables", "nft add table inet one"),
        ("a table, iptables", "iptables-legacy -t filter -L"),
        ("a sysctl", "sysctl -w net.ipv4.ip_forward=1"),
        ("a sysctl of lo", "sysctl -w net.ipv6.conf.lo.accept_ra=0"),
    ];
    for (what, command) in changes {
        let mut process = Command::new("unshare")
            .args(["-n", "sh", "-c", "ip link set lo up; exec sleep 60"])
            .spawn()
            .unwrap();
        let pid = process.id() as i32;
        let proc = format!("/proc/{pid}/comm");
        eventually("sleep", || {
            (std::fs::read_to_string(&proc).unwrap().trim() == "sleep").then_some(())
        });
        // Traffic changes counters and neighbours, which are not compared.
        let enter = format!("nsenter -n -t {pid} ");
        run(Command::new("sh").args(["-c", &format!("{enter} curl -s http://127.0.0.1:1 || true")]));
        run(Command::new("sh").args(["-c", &format!("{enter} {command}")]));
        let now = Snapshot::of_process(pid).unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        let same = now == Snapshot::of_new(&spec).unwrap();
        assert_eq!(same, what == "nothing", "{what}");
    }
}
