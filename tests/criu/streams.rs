//! Standard streams: terminal, null, files, pipes.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use serde_json::json;
use worldshim::ErrorKind;

use crate::container::{Container, Place, eventually, freeze, read_until};
use crate::steps::{dump, restore, try_restore};
use crate::{LOOP, python};

const ECHO: &str = "echo ready; while read word; do echo got-$word $(stty size); done";

/// Starts a container with a terminal; gives the terminal's master.
fn start_with_terminal(mut place: Place) -> (Container, OwnedFd) {
    place.spec["process"]["terminal"] = json!(true);
    let path = place.base.join("console");
    let listener = UnixListener::bind(&path).unwrap();
    let receiver = std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 256];
        let mut slices = [std::io::IoSliceMut::new(&mut bytes)];
        let flags = rustix::net::RecvFlags::CMSG_CLOEXEC;
        rustix::net::recvmsg(&socket, &mut slices, &mut control, flags).unwrap();
        let message = control.drain().next();
        let Some(rustix::net::RecvAncillaryMessage::ScmRights(mut fds)) = message else {
            panic!("no descriptor came");
        };
        fds.next().unwrap()
    });
    let console = ["--console-socket", path.to_str().unwrap()].map(str::to_owned);
    let container = place.start_as(&console, Stdio::null(), Stdio::null(), Stdio::null());
    (container, receiver.join().unwrap())
}

fn write(fd: &OwnedFd, text: &str) {
    File::from(fd.try_clone().unwrap())
        .write_all(text.as_bytes())
        .unwrap();
}

fn resize(terminal: &OwnedFd, rows: u16, columns: u16) {
    let size = rustix::termios::Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(terminal, size).unwrap();
}

#[test]
fn a_terminal_comes_back_twice() {
    let (original, master) = start_with_terminal(Place::new(&["/bin/sh", "-c", ECHO]));
    resize(&master, 20, 70);
    read_until(&master, "ready");
    write(&master, "one\n");
    read_until(&master, "got-one 20 70");
    let dumped = dump(&original, &original.place.images());
    assert!(dumped.parameters.terminal);
    let (clone, _, restored) = restore(
        &original,
        &dumped.parameters,
        Place::beside(&original.place),
    );
    let second = restored.pty_master.expect("the terminal's master");
    resize(&second, 30, 90);
    write(&second, "two\n");
    read_until(&second, "got-two 30 90");
    freeze(&original.place.freezer(), false);
    write(&master, "three\n");
    read_until(&master, "got-three 20 70");

    let again = dump(&clone, &clone.place.images());
    let (_third, _, restored) = restore(&clone, &again.parameters, Place::beside(&clone.place));
    let third = restored.pty_master.expect("the terminal's master");
    write(&third, "four\n");
    read_until(&third, "got-four 30 90");
}

#[test]
fn a_terminal_that_is_not_as_it_was_is_refused() {
    let (original, output) = Place::new(&["/bin/sh", "-c", LOOP]).start();
    read_until(&output, "tick 3\n");
    let mut parameters = dump(&original, &original.place.images()).parameters;
    parameters.terminal = true; // The test's restore then wants a terminal.
    let mut plain = parameters.clone();
    plain.terminal = false;
    let place = Place::beside(&original.place);
    let error = crate::steps::restore_with_terminal(&original, &plain, &place).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

#[test]
fn null_streams_get_the_new_ones() {
    let place = Place::new(&["/bin/sh", "-c", LOOP]);
    let original = place.start_with(Stdio::null(), Stdio::null(), Stdio::null());
    original.wait_for_progress("/count");
    let dumped = dump(&original, &original.place.images());
    let (clone, _output, _) = restore(
        &original,
        &dumped.parameters,
        Place::beside(&original.place),
    );
    clone.wait_for_progress("/count");
    let again = dump(&clone, &clone.place.images());
    let (third, _output, _) = restore(&clone, &again.parameters, Place::beside(&clone.place));
    third.wait_for_progress("/count");
}

#[test]
fn a_log_file_on_the_host_is_replaced() {
    let place = Place::new(&["/bin/sh", "-c", LOOP]);
    let path = place.base.join("log.txt");
    let file = File::options()
        .append(true)
        .create(true)
        .open(&path)
        .unwrap();
    let error = file.try_clone().unwrap();
    let original = place.start_with(Stdio::null(), file.into(), error.into());
    eventually("the log", || {
        fs::read_to_string(&path)
            .unwrap()
            .contains("tick 3\n")
            .then_some(())
    });
    let dumped = dump(&original, &original.place.images());
    let (clone, output, _) = restore(
        &original,
        &dumped.parameters,
        Place::beside(&original.place),
    );
    read_until(&output, "tick");
    let again = dump(&clone, &clone.place.images());
    let (_third, output, _) = restore(&clone, &again.parameters, Place::beside(&clone.place));
    read_until(&output, "tick");
}

#[test]
fn input_goes_on_and_a_pipe_inside_stays_inside() {
    let script = "
import os, sys
r, w = os.pipe()
if os.fork() == 0:
    os.dup2(w, 1); os.close(r); os.close(w)
    print('ready-child', flush=True)
    for line in sys.stdin: print('child', line.strip(), flush=True)
    os._exit(0)
os.dup2(r, 0); os.close(r); os.close(w)
for line in sys.stdin: print('parent of', line.strip(), flush=True)
";
    let (reader, writer) = std::io::pipe().unwrap();
    let (out_reader, out_writer) = std::io::pipe().unwrap();
    let error = out_writer.try_clone().unwrap();
    let original = python(script).start_with(reader.into(), out_writer.into(), error.into());
    read_until(&out_reader, "parent of ready-child");
    write(&writer.as_fd().try_clone_to_owned().unwrap(), "one\n");
    read_until(&out_reader, "parent of child one");
    let dumped = dump(&original, &original.place.images());
    let keys: Vec<u8> = dumped.parameters.stdio.iter().map(|file| file.fd).collect();
    assert_eq!(keys, [1, 2], "stream 0 of init is an inner pipe");
    let place = Place::beside(&original.place);
    let (result, output) = try_restore(&original, &dumped.parameters, &place);
    let pid = result.unwrap().pid;
    let clone = Container { place, pid };
    // Its input came through a process that is not init and has no other end
    // now: the child reads to the end, and then the parent, in its own time.
    eventually("the end", || (!clone.is_alive()).then_some(()));
    drop((writer, output));
    let _ = Command::new("true").status();
}
