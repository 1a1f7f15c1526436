//! Standard streams and terminals of restored containers, over two generations.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::container::Container;
use crate::common::ctr::{self, BUSYBOX, within};
use crate::common::fifos::Fifos;
use crate::common::rpc::Streams;
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("pipes", pipes),
        shared("terminal", terminal),
        shared("terminal_through_ctr", terminal_through_ctr),
        shared("log_file", log_file),
    ]
}

const ECHO: &str =
    "n=0; while read line; do n=$((n+1)); echo $n $line; echo error $n >&2; done; echo end $n";

fn pipes(test: &Test) {
    let mut last = Container::create(test, "a", &[], BUSYBOX, &["sh", "-c", ECHO]);
    let mut fifos = Fifos::new(test, "a", false);
    last.start(None, &fifos.streams);
    fifos.write("one\n");
    fifos.until("1 one\n");
    fifos.errors_until("error 1\n");
    for (number, name) in [(2, "b"), (3, "c")] {
        let world = last.checkpoint_to(test, &format!("world-{name}"));
        let next = Container::create(test, name, &[], BUSYBOX, &["sh", "-c", ECHO]);
        let streams = Fifos::new(test, name, false);
        next.start(Some(&world), &streams.streams);
        for (fifos, name) in [(&fifos, "old"), (&streams, "new")] {
            fifos.write(&format!("{name}\n"));
            fifos.until(&format!("{number} {name}\n"));
            fifos.errors_until(&format!("error {number}\n"));
        }
        assert_eq!(next.exec(&["echo", "in"]), "in");
        (last, fifos) = (next, streams);
    }
    // The end of the input gets through, too.
    ctr::ok(&["task", "kill", "-s", "KILL", &test.id("a")]);
    fifos.write("last\n");
    fifos.until("4 last\n");
    crate::common::rpc::Containerd::connect()
        .close_stdin(&last.id)
        .expect("close stdin");
    let _outputs = fifos.close_stdin();
    within(10, "the end after the input's end", || {
        last.status() == "STOPPED"
    });
}

const ECHO_SIZE: &str =
    "stty -echo; n=0; while read line; do n=$((n+1)); echo $n $line on $(tty) $(stty size); done";

fn terminal(test: &Test) {
    let containerd = crate::common::rpc::Containerd::connect();
    let mut last = Container::create(test, "a", &["-t"], BUSYBOX, &["sh", "-c", ECHO_SIZE]);
    let mut fifos = Fifos::new(test, "a", true);
    last.start(None, &fifos.streams);
    containerd.resize(&last.id, 100, 30).expect("resize");
    fifos.write("one\n");
    fifos.until("1 one on /dev/pts/0 30 100\r\n");
    for (number, name) in [(2, "b"), (3, "c")] {
        let world = last.checkpoint_to(test, &format!("world-{name}"));
        let next = Container::create(test, name, &["-t"], BUSYBOX, &["sh", "-c", ECHO_SIZE]);
        let streams = Fifos::new(test, name, true);
        next.start(Some(&world), &streams.streams);
        containerd
            .resize(&next.id, 90, 20 + number)
            .expect("resize");
        streams.write("new\n");
        streams.until(&format!(
            "{number} new on /dev/pts/0 {} 90\r\n",
            20 + number
        ));
        fifos.write("old\n");
        fifos.until(&format!("{number} old on /dev/pts/0"));
        // Control characters still mean something: the shell dies of SIGINT.
        (last, fifos) = (next, streams);
    }
    fifos.write("\x03");
    within(10, "the end after Ctrl-C", || last.status() == "STOPPED");
}

fn terminal_through_ctr(test: &Test) {
    let program = "n=0; while sleep 0.1; do n=$((n+1)); echo tick $n; echo $n >/count; done";
    let id = test.id("a");
    let run = format!(
        "ctr run -d -t --runtime {} {BUSYBOX} {id} sh -c '{program}'",
        ctr::RUNTIME
    );
    assert!(
        in_terminal(&run, &test.path("a.out"))
            .wait()
            .expect("script")
            .success()
    );
    let mut last = Container { id };
    last.counts_past(2);
    for name in ["b", "c"] {
        let image = test.image(name);
        last.checkpoint(&image);
        let at = last.count();
        let id = test.id(name);
        let output = test.path(&format!("{name}.out"));
        let mut client = in_terminal(&format!("ctr c restore --rw --live {id} {image}"), &output);
        within(20, "the restore", || {
            ctr::status(&id).as_deref() == Some("RUNNING")
        });
        last = Container { id };
        last.goes_on_from(at);
        within(20, "output of the restored", || {
            fs::read_to_string(&output)
                .unwrap_or_default()
                .contains("tick ")
        });
        assert_eq!(last.exec(&["echo", "in"]), "in");
        let _ = client.kill();
        let _ = client.wait();
    }
}

/// Runs a command line on a terminal of its own; what it shows goes into a file.
fn in_terminal(line: &str, output: &Path) -> std::process::Child {
    let mut command = Command::new("script");
    command.args(["-qefc", line]).arg(output);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("run script")
}

fn log_file(test: &Test) {
    let program = "n=0; while sleep 0.1; do n=$((n+1)); echo out $n; echo err $n >&2; done";
    let log = |name: &str| test.path(&format!("{name}.log"));
    let streams = |name: &str| {
        let uri = format!("file://{}", log(name).display());
        Streams {
            stdout: uri.clone(),
            stderr: uri,
            ..Streams::default()
        }
    };
    let says = |name: &str, what: &str| {
        within(20, &format!("{what} in {name}.log"), || {
            fs::read_to_string(log(name))
                .unwrap_or_default()
                .contains(what)
        });
    };
    let mut last = Container::create(test, "a", &[], BUSYBOX, &["sh", "-c", program]);
    last.start(None, &streams("a"));
    says("a", "err 3\n");
    for name in ["b", "c"] {
        let world = last.checkpoint_to(test, &format!("world-{name}"));
        let next = Container::create(test, name, &[], BUSYBOX, &["sh", "-c", program]);
        next.start(Some(&world), &streams(name));
        says(name, "out ");
        says(name, "err ");
        let text = fs::read_to_string(log(name)).expect("the log");
        assert!(!text.contains("out 1\n"), "{name} started anew: {text}");
        last = next;
    }
}
