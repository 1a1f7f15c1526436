//! CRIU's logs: their tail, and the lines in it that name the cause.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::cause;
use crate::error::{Error, ErrorKind};

/// More of a log's end than this is not read.
const TAIL_BYTES: u64 = 64 << 10;
/// How many of CRIU's own lines an error quotes.
const QUOTED_LINES: usize = 6;
/// A longer line than this is cut.
const LINE_CHARS: usize = 400;

/// The end of a log, at most 64 KiB; empty when there is none.
pub fn read_tail(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut tail = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut tail)?;
        Ok(tail)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// The error lines of a log, first to last, without times and process ids.
pub fn error_lines(log: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in log.lines() {
        let Some(at) = line.find("Error (") else {
            continue;
        };
        // Printed first by every criu without CAP_SYS_RESOURCE, and harmless.
        if line.contains("RLIMIT_NOFILE") {
            continue;
        }
        let line: String = line[at + "Error ".len()..]
            .chars()
            .take(LINE_CHARS)
            .collect();
        let line = line.trim_end().to_owned();
        if lines.last() != Some(&line) {
            lines.push(line);
        }
    }
    lines
}

/// An error that says `what` failed, why if the log tells, and CRIU's own words.
pub fn failure(what: &str, log: &str) -> Error {
    let lines = error_lines(log);
    let quoted = match lines.len() {
        0 => log.trim().lines().last().unwrap_or_default().to_owned(),
        count => lines[count.saturating_sub(QUOTED_LINES)..].join(" | "),
    };
    match cause::find(&lines) {
        Some(cause) => Error::new(cause.kind, format!("{}; {what}: {quoted}", cause.sentence)),
        None => Error::new(ErrorKind::Criu, format!("{what}: {quoted}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_harmless_first_error_is_left_out() {
        let log = "(00.000001) Error (criu/util.c:1): rlimit: Can't setup RLIMIT_NOFILE for self\n\
                   (00.010000) Warn  (criu/x.c:1): something\n\
                   (00.020000)    12: Error (criu/sk-inet.c:2): Connected TCP socket\n\
                   (00.020001)    12: Error (criu/sk-inet.c:2): Connected TCP socket\n";
        assert_eq!(
            error_lines(log),
            ["(criu/sk-inet.c:2): Connected TCP socket"]
        );
    }

    #[test]
    fn without_an_error_line_the_last_line_is_quoted() {
        let error = failure("CRIU died", "one\ntwo\n");
        assert_eq!(error.to_string(), "CRIU died: two");
    }

    proptest::proptest! {
        #[test]
        fn any_log_can_be_read(log in "\\PC*(Error \\(criu)?\\PC*") {
            let _ = failure("x", &log);
        }
    }
}
