//! Running a program for what it prints, not longer than a given time.

use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, IoContext, Result};

/// What a program left behind.
pub(super) struct Ended {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Ended {
    /// Both outputs as text.
    pub fn text(&self) -> String {
        let both = [&*self.stdout, &*self.stderr].concat();
        String::from_utf8_lossy(&both).into_owned()
    }
}

/// Runs it with no input. It is killed when it takes longer than `timeout`.
pub(super) fn run(command: &mut Command, timeout: Duration) -> Result<Ended> {
    let name = format!("{}", command.get_program().display());
    let scratch = || tempfile::tempfile().context(|| "make a temporary file");
    let (stdout, stderr) = (scratch()?, scratch()?);
    let copy = |file: &File| file.try_clone().context(|| "share a temporary file");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(copy(&stdout)?)
        .stderr(copy(&stderr)?)
        .spawn()
        .context(|| format!("run {name}"))?;
    let deadline = Instant::now() + timeout;
    let status = loop {
        if let Some(status) = child.try_wait().context(|| format!("wait for {name}"))? {
            break status;
        }
        if Instant::now() >= deadline {
            // It may have ended in between: either way it is reaped here.
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::new(
                ErrorKind::Timeout,
                format!("{name} did not end within {timeout:?}"),
            ));
        }
        std::thread::sleep(Duration::from_millis(3));
    };
    Ok(Ended {
        status,
        stdout: content(stdout)?,
        stderr: content(stderr)?,
    })
}

fn content(mut file: File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut bytes))
        .context(|| "read a program's output")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_status_are_kept() {
        let ended = run(
            Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]),
            Duration::from_secs(10),
        )
        .unwrap();
        assert_eq!(ended.status.code(), Some(3));
        assert_eq!(ended.text(), "out\nerr\n");
    }

    #[test]
    fn what_takes_too_long_is_killed() {
        let slow = run(Command::new("sleep").arg("1000"), Duration::from_millis(30));
        assert_eq!(slow.err().map(|e| e.kind()), Some(ErrorKind::Timeout));
    }
}
