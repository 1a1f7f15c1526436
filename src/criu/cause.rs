//! Well-known causes in CRIU's logs, each as one sentence for a person.

use crate::error::ErrorKind;

/// Why CRIU failed.
pub(super) struct Cause {
    pub kind: ErrorKind,
    pub sentence: String,
}

/// The cause that `lines` (the error lines of a log) name, if it is a known one.
pub(super) fn find(lines: &[String]) -> Option<Cause> {
    lines.iter().find_map(|line| of_line(line))
}

fn of_line(line: &str) -> Option<Cause> {
    let (kind, sentence) = KNOWN
        .iter()
        .find(|(_, words, _)| words.iter().all(|word| line.contains(word)))
        .map(|(kind, _, sentence)| (*kind, (*sentence).to_owned()))?;
    Some(Cause { kind, sentence })
}

/// Kind, words that a line must all hold, sentence.
const KNOWN: &[(ErrorKind, &[&str], &str)] = &[(
    ErrorKind::Obstacle,
    &["Connected TCP socket"],
    "an established TCP connection stands in the way",
)];
