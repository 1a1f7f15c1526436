//! FIFOs for a task's standard streams, and their other ends.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use super::rpc::Streams;
use super::suite::Test;

/// The streams of a task, in our hands.
pub struct Fifos {
    pub streams: Streams,
    stdin: File,
    stdout: File,
    stderr: File,
}

impl Fifos {
    /// FIFOs in the test's folder. With a terminal there is no stderr.
    pub fn new(test: &Test, name: &str, terminal: bool) -> Fifos {
        let make = |stream: &str| {
            let path = test.path(&format!("{name}.{stream}"));
            rustix::fs::mknodat(
                rustix::fs::CWD,
                &path,
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::RWXU,
                0,
            )
            .expect("make a FIFO");
            // For both, so that no open waits and the other end sees no end.
            let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
            let file = File::options()
                .read(true)
                .write(true)
                .custom_flags(nonblocking)
                .open(&path);
            (
                path.to_string_lossy().into_owned(),
                file.expect("open a FIFO"),
            )
        };
        let (stdin_path, stdin) = make("in");
        let (stdout_path, stdout) = make("out");
        let (stderr_path, stderr) = make("err");
        Fifos {
            streams: Streams {
                stdin: stdin_path,
                stdout: stdout_path,
                stderr: if terminal { String::new() } else { stderr_path },
                terminal,
            },
            stdin,
            stdout,
            stderr,
        }
    }

    /// Lets go of stdin: who reads it sees its end.
    pub fn close_stdin(self) -> [File; 2] {
        [self.stdout, self.stderr]
    }

    /// Writes to stdin.
    pub fn write(&self, text: &str) {
        (&self.stdin)
            .write_all(text.as_bytes())
            .expect("write to a FIFO");
    }

    /// Reads stdout until it says `wanted`.
    #[track_caller]
    pub fn until(&self, wanted: &str) -> String {
        read_until(&self.stdout, wanted)
    }

    /// Reads stderr until it says `wanted`.
    #[track_caller]
    pub fn errors_until(&self, wanted: &str) -> String {
        read_until(&self.stderr, wanted)
    }
}

#[track_caller]
fn read_until(mut file: &File, wanted: &str) -> String {
    let end = Instant::now() + Duration::from_secs(20);
    let mut text = String::new();
    let mut chunk = [0; 4096];
    while !text.contains(wanted) {
        match file.read(&mut chunk) {
            Ok(count) => text += &String::from_utf8_lossy(&chunk[..count]),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
        assert!(Instant::now() < end, "no {wanted:?} came, but {text:?}");
    }
    text
}
