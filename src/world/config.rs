//! The configuration of a host, `/etc/worldshim/config.toml`.
//!
//! Everything has a default, so the file may be missing or empty; a field it
//! has and we do not know is an error. `config/config.toml` shows every field
//! with its default and what it means.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::policy::TcpPolicy;
use super::secrets::{Rules, SecretsConfig};
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

/// Where the configuration is read from.
pub const DEFAULT_PATH: &str = "/etc/worldshim/config.toml";
/// Environment variable that names another file.
pub const PATH_VARIABLE: &str = "WORLDSHIM_CONFIG";
/// Largest configuration file, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The whole configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How checkpoints are taken.
    pub checkpoint: CheckpointConfig,
    /// Which CRIU is used.
    pub criu: CriuConfig,
    /// What happens at a restore.
    pub restore: RestoreConfig,
    /// What looks like a credential.
    pub secrets: SecretsConfig,
}

/// Which CRIU is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CriuConfig {
    /// Path of the `criu` program, or a name to be looked up in `PATH`.
    pub path: PathBuf,
}

/// How checkpoints are taken, where neither the request nor an annotation says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Dump file locks held by the container.
    pub file_locks: bool,
    /// Dump unix sockets whose other end is outside of the container.
    pub external_unix_sockets: bool,
    /// End the container after a successful checkpoint.
    pub exit: bool,
    /// Longest time a container may be frozen, in seconds, before a checkpoint is called off.
    pub timeout_seconds: u64,
    /// How long the shim leaves a container that it found frozen frozen after the
    /// checkpoint, in seconds, for the client's Resume; after that it thaws it itself.
    pub resume_grace_seconds: u64,
}

/// What happens at a restore.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestoreConfig {
    /// What becomes of established TCP connections to outside.
    pub tcp: TcpPolicy,
}

impl Default for CriuConfig {
    fn default() -> CriuConfig {
        CriuConfig {
            path: "criu".into(),
        }
    }
}

impl Default for CheckpointConfig {
    fn default() -> CheckpointConfig {
        CheckpointConfig {
            file_locks: true,
            external_unix_sockets: false,
            exit: false,
            timeout_seconds: 600,
            resume_grace_seconds: 30,
        }
    }
}

impl Config {
    /// The configuration of this host: the file that `WORLDSHIM_CONFIG` names, which must
    /// exist; else `/etc/worldshim/config.toml` where there is one; else the defaults.
    pub fn load() -> Result<Config> {
        match std::env::var_os(PATH_VARIABLE) {
            Some(path) => Config::read(Path::new(&path)),
            None => match Config::read(Path::new(DEFAULT_PATH)) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(Config::default()),
                result => result,
            },
        }
    }

    /// Reads one file. [`ErrorKind::InvalidInput`] where its contents are wrong.
    pub fn read(path: &Path) -> Result<Config> {
        use std::io::Read;
        let file = std::fs::File::open(path).context(|| format!("open {}", path.display()))?;
        let mut text = String::new();
        file.take(MAX_BYTES)
            .read_to_string(&mut text)
            .context(|| format!("read {}", path.display()))?;
        Config::parse(&text).map_err(|error| error.within(path.display()))
    }

    /// Parses a configuration.
    pub fn parse(text: &str) -> Result<Config> {
        let config: Config = toml::from_str(text)
            .map_err(|error| Error::caused_by(ErrorKind::InvalidInput, "configuration", error))?;
        // A mistake in a pattern is told now and not at the first checkpoint.
        Rules::new(&config.secrets)?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_means_the_defaults() {
        assert_eq!(Config::parse("").unwrap(), Config::default());
    }

    #[test]
    fn the_example_states_the_defaults() {
        let example = include_str!("../../config/config.toml");
        assert_eq!(Config::parse(example).unwrap(), Config::default());
        let complete = toml::Value::try_from(Config::default()).unwrap();
        let shown: toml::Value = toml::from_str(example).unwrap();
        assert_eq!(shown, complete, "the example leaves a field out");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("[criu]\npth = 'x'", "pth"),
            ("[restore]\ntcp = 'keep'", "established"),
            ("[secrets]\ndeny_names = ['[x']", "[x"),
            ("nonsense", "line 1"),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn a_missing_file_is_not_found() {
        let error = Config::read(Path::new("/nonexistent/config.toml")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
