//! The one error type: what kind of failure it is, and a sentence that says
//! what happened, where, and what to do.
//!
//! [`ErrorKind::codes`] is the only table from a kind to an exit code of the
//! command line and to a gRPC status of the Task service.

use std::fmt::Display;

/// What kind of failure an [`Error`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The caller asked for something that makes no sense.
    InvalidInput,
    /// The named container, process, world or file is not there.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The thing is there, but in a state that does not allow this.
    WrongState,
    /// A stored world is damaged, truncated or hostile.
    CorruptWorld,
    /// A world is whole, but this version or this host cannot take it.
    ForeignWorld,
    /// The host lacks something: a tool, a kernel feature, a privilege.
    HostUnfit,
    /// Something in the container cannot be captured or brought back.
    Obstacle,
    /// CRIU failed or died.
    Criu,
    /// The container runtime (libcontainer) failed.
    Runtime,
    /// No room on a disk, or a limit reached.
    NoSpace,
    /// The operation was called off.
    Aborted,
    /// The operation took longer than it may.
    Timeout,
    /// The other side (containerd) cannot be reached.
    Unavailable,
    /// The operating system refused something.
    Io,
    /// A fault of ours.
    Internal,
}

/// What a failure is outside this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Codes {
    /// Exit status of the `world` command.
    pub exit: u8,
    /// gRPC status number (see the gRPC status code list).
    pub grpc: i32,
}

impl ErrorKind {
    /// The one table: kind → exit status, gRPC status.
    pub fn codes(self) -> Codes {
        let (exit, grpc) = match self {
            ErrorKind::InvalidInput => (2, 3),
            ErrorKind::NotFound => (3, 5),
            ErrorKind::AlreadyExists => (4, 6),
            ErrorKind::WrongState => (5, 9),
            ErrorKind::CorruptWorld => (6, 15),
            ErrorKind::ForeignWorld => (7, 9),
            ErrorKind::HostUnfit => (8, 9),
            ErrorKind::Obstacle => (9, 9),
            ErrorKind::Criu => (10, 2),
            ErrorKind::Runtime => (11, 2),
            ErrorKind::NoSpace => (12, 8),
            ErrorKind::Aborted => (13, 10),
            ErrorKind::Timeout => (14, 4),
            ErrorKind::Unavailable => (15, 14),
            ErrorKind::Io => (1, 2),
            ErrorKind::Internal => (1, 13),
        };
        Codes { exit, grpc }
    }
}

/// A failure: its kind, one sentence for a person, and where it came from.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure with no cause below it.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// A failure caused by another one, whose text becomes part of this one's.
    pub fn caused_by(
        kind: ErrorKind,
        message: impl Display,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Error {
            kind,
            message: format!("{message}: {source}"),
            source: Some(Box::new(source)),
        }
    }

    /// The kind, for deciding what to do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The same failure with a few words put before it.
    #[must_use]
    pub fn within(mut self, context: impl Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

/// A full disk and a reached limit are told apart from other failures of the system.
fn kind_of_io(error: &std::io::Error) -> ErrorKind {
    use std::io::ErrorKind as Io;
    match error.kind() {
        Io::NotFound => ErrorKind::NotFound,
        Io::AlreadyExists => ErrorKind::AlreadyExists,
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => ErrorKind::NoSpace,
        Io::TimedOut => ErrorKind::Timeout,
        _ => ErrorKind::Io,
    }
}

/// Says what was being done when the operating system refused.
pub trait IoContext<T> {
    /// `context` reads like "open /run/x": it is put before the system's words.
    fn context<C: Display>(self, context: impl FnOnce() -> C) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> IoContext<T> for Result<T, E> {
    fn context<C: Display>(self, context: impl FnOnce() -> C) -> Result<T> {
        self.map_err(|error| {
            let error = error.into();
            Error::caused_by(kind_of_io(&error), context(), error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_io_error_keeps_its_kind_and_says_where() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error = Err::<(), _>(full).context(|| "write /x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert!(error.to_string().starts_with("write /x: "));
    }

    #[test]
    fn rustix_errnos_convert() {
        let error = Err::<(), _>(rustix::io::Errno::NOENT)
            .context(|| "open /y")
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
