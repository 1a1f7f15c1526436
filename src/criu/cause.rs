//! Well-known causes in CRIU's logs, each as one sentence for a person.

use crate::error::ErrorKind;
use ErrorKind::{CorruptWorld, ForeignWorld, HostUnfit, NoSpace, Obstacle};

/// Why CRIU failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cause {
    pub kind: ErrorKind,
    pub sentence: &'static str,
}

/// The cause that `lines` (the error lines of a log) name, if it is a known one.
pub(super) fn find(lines: &[String]) -> Option<Cause> {
    // In the order of the table: it goes from the surest words to the vaguest.
    KNOWN.iter().find_map(|(kind, words, sentence)| {
        let told = |line: &String| words.iter().all(|word| line.contains(word));
        lines.iter().any(told).then_some(Cause {
            kind: *kind,
            sentence,
        })
    })
}

type Known = (ErrorKind, &'static [&'static str], &'static str);

/// Kind, words that one line must all hold, sentence.
const KNOWN: &[Known] = &[
    (
        NoSpace,
        &["No space left on device"],
        "there is no room for the images",
    ),
    (
        NoSpace,
        &["Disk quota exceeded"],
        "the disk quota leaves no room for the images",
    ),
    (
        NoSpace,
        &["Cannot allocate memory"],
        "there is not enough memory",
    ),
    (
        HostUnfit,
        &["Can't get rlimit", "not permitted"],
        "root lacks CAP_SYS_RESOURCE here, without which processes of other users cannot be captured",
    ),
    // Sockets.
    (
        HostUnfit,
        &["sockets: Can't get 1:16 opt", "not supported"],
        "this CRIU is too old for this kernel: install CRIU 4.2 or later",
    ),
    (
        Obstacle,
        &["Dangling connection"],
        "a unix socket is connected to a process outside of the container",
    ),
    (
        Obstacle,
        &["External socket is used"],
        "a unix socket is connected to a process outside of the container",
    ),
    (
        Obstacle,
        &["half of stream unix connection"],
        "a unix socket is connected to a process outside of the container",
    ),
    (
        Obstacle,
        &["name-less external socket"],
        "a unix socket is connected to a process outside of the container",
    ),
    (
        Obstacle,
        &["Non-empty write queue on an in-flight socket"],
        "a unix connection that nobody has accepted yet has data in it already: try again",
    ),
    (
        Obstacle,
        &["Connected TCP socket"],
        "an established TCP connection stands in the way",
    ),
    (
        Obstacle,
        &["In-flight connection"],
        "a TCP connection is just being made: try again",
    ),
    (
        Obstacle,
        &["Unsupported proto 262"],
        "a socket speaks Multipath TCP; Go programs stop that with GODEBUG=multipathtcp=0",
    ),
    (
        Obstacle,
        &["Unsupported proto"],
        "a socket speaks a protocol that cannot be captured",
    ),
    (
        Obstacle,
        &["Unsupported socket"],
        "a socket is of a kind that cannot be captured",
    ),
    (
        Obstacle,
        &["corked dgram socket"],
        "a datagram socket holds data back (UDP_CORK)",
    ),
    (
        Obstacle,
        &["Can't bind inet socket", "assign requested address"],
        "a socket was bound to an address that the new network namespace does not have",
    ),
    (
        Obstacle,
        &["Can't bind inet socket", "in use"],
        "a socket was bound to an address that is taken",
    ),
    (
        Obstacle,
        &["Can't connect inet socket"],
        "a TCP connection cannot be taken up again from the new network namespace",
    ),
    // Files.
    (
        Obstacle,
        &["file locks are hold"],
        "a file lock is held, and locks were not to be kept",
    ),
    (
        Obstacle,
        &["Can't dump ghost file"],
        "a deleted file that is still open is larger than allowed",
    ),
    (
        Obstacle,
        &["Can't create link remap"],
        "an open file was deleted that has another name elsewhere",
    ),
    (Obstacle, &["io_uring"], "a process uses io_uring"),
    (
        Obstacle,
        &["suitable path for handle"],
        "an inotify or fanotify watch lies on a file that cannot be found",
    ),
    (
        Obstacle,
        &["Can't dump that handle"],
        "an inotify or fanotify watch lies on a file that cannot be found",
    ),
    (
        Obstacle,
        &["Can't dump file", "of that type"],
        "an open file is of a type that cannot be captured, such as a device",
    ),
    (
        Obstacle,
        &["Open files on overmounted mounts"],
        "an open file lies under a mount that was made over it",
    ),
    (
        Obstacle,
        &["Can't lookup mount="],
        "an open file is outside of the container's mounts",
    ),
    (
        Obstacle,
        &["dangling tty"],
        "a terminal from outside of the container is open",
    ),
    (
        Obstacle,
        &["external terminals"],
        "terminals from outside of the container are open",
    ),
    (
        Obstacle,
        &["ctty inheritance detected"],
        "a terminal from outside of the container is open",
    ),
    (
        Obstacle,
        &["is not a session leader"],
        "the container's init belongs to a session from outside",
    ),
    // Memory.
    (
        Obstacle,
        &["Unsupported mapping found"],
        "a process maps memory of a device",
    ),
    (
        Obstacle,
        &["aio rings"],
        "a process has asynchronous I/O going on",
    ),
    // Mounts and namespaces.
    (
        Obstacle,
        &["doesn't have a proper root mount"],
        "a mount that the spec does not list came from outside",
    ),
    (
        Obstacle,
        &["unreachable sharing"],
        "a mount receives propagation from a mount outside",
    ),
    (
        Obstacle,
        &["unsupported id"],
        "a mount is of a filesystem that cannot be captured",
    ),
    (
        Obstacle,
        &["Can't dump nested"],
        "the container made namespaces of its own inside",
    ),
    (
        Obstacle,
        &["Nested mount namespaces"],
        "the container made namespaces of its own inside",
    ),
    (
        Obstacle,
        &["pid namespace without the process init"],
        "the container shares a pid namespace whose init is elsewhere",
    ),
    // Stopping the processes.
    (
        Obstacle,
        &["Unseizable"],
        "a process could not be stopped: it waits in the kernel, or a debugger holds it",
    ),
    (
        Obstacle,
        &["SEIZE"],
        "a process could not be stopped: a debugger may hold it",
    ),
    (
        Obstacle,
        &["Unable to freeze cgroup"],
        "a process could not be stopped: it waits in the kernel",
    ),
    (
        Obstacle,
        &["Timeout reached. Try to interrupt"],
        "a process could not be stopped in time",
    ),
    // Bringing back.
    (
        ForeignWorld,
        &["capabilities do not match"],
        "this processor lacks features that the processes use",
    ),
    (
        ForeignWorld,
        &["xfeatures has unsupported"],
        "this processor lacks features that the processes use",
    ),
    (
        Obstacle,
        &["has bad size"],
        "a file that was open is not as it was at the checkpoint",
    ),
    (
        Obstacle,
        &["has bad mode"],
        "a file that was open is not as it was at the checkpoint",
    ),
    (
        Obstacle,
        &["has bad build-ID"],
        "a program or library is not the one that was running",
    ),
    (
        Obstacle,
        &["Can't open file", "on restore"],
        "a file that was open is not there",
    ),
    (
        Obstacle,
        &["do not match expected"],
        "a process id that must be restored is taken",
    ),
    (
        Obstacle,
        &["Can't fork for", "File exists"],
        "a process id that must be restored is taken",
    ),
    (
        CorruptWorld,
        &["Bad magic"],
        "an image of the processes is damaged",
    ),
    (
        CorruptWorld,
        &["Unexpected EOF"],
        "an image of the processes is cut short",
    ),
    (
        CorruptWorld,
        &["Read ", "bytes while", "expected"],
        "an image of the processes is cut short",
    ),
    (
        CorruptWorld,
        &["Failed unpacking"],
        "an image of the processes is damaged",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(line: &str) -> Option<ErrorKind> {
        find(&[line.to_owned()]).map(|cause| cause.kind)
    }

    #[test]
    fn causes_are_told_apart() {
        let ghost =
            "(criu/files-reg.c:1031): Can't dump ghost file /big of 3145728 size, increase limit";
        assert_eq!(cause(ghost), Some(Obstacle));
        let full = "(criu/bfd.c:131): bfd: Error flushing image: No space left on device";
        assert_eq!(cause(full), Some(NoSpace));
        assert_eq!(cause("(criu/cr-dump.c:2111): Dumping FAILED."), None);
    }

    #[test]
    fn the_surest_words_win_over_the_first_line() {
        let lines = [
            "(criu/mnt.c:1): mnt: Can't dump nested x".to_owned(),
            "(criu/bfd.c:131): No space left on device".to_owned(),
        ];
        assert_eq!(find(&lines).map(|cause| cause.kind), Some(NoSpace));
    }

    #[test]
    fn sentences_are_sentences() {
        for (_, words, sentence) in KNOWN {
            assert!(!words.is_empty() && !sentence.ends_with('.'));
            assert!(sentence.starts_with(|c: char| c.is_ascii_lowercase()));
        }
    }
}
