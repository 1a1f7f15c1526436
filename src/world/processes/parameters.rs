//! What a restore has to replay of a dump.

use serde::{Deserialize, Serialize};

use super::external_mounts::ExternalMount;
use super::namespaces::Namespace;
use super::stdio::StdioFile;

/// What a restore has to replay of a dump.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DumpParameters {
    /// The processes' terminal is `/dev/console` of the container.
    pub terminal: bool,
    /// Standard streams that led out of the container.
    pub stdio: Vec<StdioFile>,
    /// The namespaces that the processes were in.
    pub namespaces: Vec<Namespace>,
    /// Mounts that came from outside.
    pub external_mounts: Vec<ExternalMount>,
    /// Established TCP connections.
    pub tcp: TcpFacts,
    /// File locks are in the images.
    pub file_locks: bool,
    /// Unix sockets may have had their other end outside.
    pub external_unix: bool,
    /// The hostname at the time, when the container had its own.
    pub hostname: Option<String>,
}

/// How many established TCP connections there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpFacts {
    /// Sockets whose other end is in the container too.
    pub inside: u32,
    /// Sockets whose other end is elsewhere.
    pub outside: u32,
}
