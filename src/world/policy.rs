//! What shall happen at a checkpoint or a restore of one container: the
//! annotations `dev.worldshim.*` of its spec over the configuration of the host.
//!
//! Annotations exist because nerdctl and Kubernetes send no options to a
//! runtime that is not runc. They are read from the spec the container runs
//! with, never from a world. An annotation in our prefix that we do not know is
//! an error when the container is created: a misspelt one would otherwise show
//! only when a state is already lost.

use std::collections::HashMap;

use super::config::Config;
use super::fork;
pub use super::processes::TcpPolicy;
use super::publish::PublishedPort;
use crate::{Error, ErrorKind, Result};

/// Prefix of our annotations.
pub const PREFIX: &str = "dev.worldshim.";
/// The one annotation that is no wish: a restore notes the path it replaced.
pub const GIVEN_CGROUP: &str = "given-cgroups-path";

/// What shall happen at a checkpoint or a restore of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// `dev.worldshim.tcp`: `close` or `established`.
    pub tcp: TcpPolicy,
    /// `dev.worldshim.file-locks`: `true` or `false`.
    pub file_locks: bool,
    /// `dev.worldshim.external-unix-sockets`: `true` or `false`.
    pub external_unix_sockets: bool,
    /// `dev.worldshim.exit`: `true` or `false`; end the container after a successful checkpoint.
    pub exit: bool,
    /// `dev.worldshim.publish`: ports that the host answers on.
    pub publish: Vec<PublishedPort>,
}

impl Policy {
    /// The policy of a container with these annotations on a host with this configuration.
    ///
    /// [`ErrorKind::InvalidInput`] for an annotation of ours that is unknown or makes no sense.
    pub fn new(annotations: &HashMap<String, String>, config: &Config) -> Result<Policy> {
        let mut policy = Policy {
            tcp: config.restore.tcp,
            file_locks: config.checkpoint.file_locks,
            external_unix_sockets: config.checkpoint.external_unix_sockets,
            exit: config.checkpoint.exit,
            publish: Vec::new(),
        };
        // In the order of their names, so that the same mistakes give the same error.
        let mut ours: Vec<_> = annotations
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value.as_str())))
            .collect();
        ours.sort_unstable();
        for (key, value) in ours {
            policy.set(key, value)?;
        }
        Ok(policy)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "tcp" => {
                self.tcp = match value {
                    "close" => TcpPolicy::Close,
                    "established" => TcpPolicy::Established,
                    _ => return Err(wrong(key, value, "close or established")),
                }
            }
            "file-locks" => self.file_locks = yes_or_no(key, value)?,
            "external-unix-sockets" => self.external_unix_sockets = yes_or_no(key, value)?,
            "exit" => self.exit = yes_or_no(key, value)?,
            "publish" => self.publish = PublishedPort::list(value)?,
            GIVEN_CGROUP => {}
            key if key == fork::ROOTFS => fork::check_rootfs(value)?,
            _ => {
                if let Some(checked) = fork::check(key, value) {
                    return checked;
                }
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!(
                        "annotation {PREFIX}{key}: unknown; there are tcp, file-locks, \
                         external-unix-sockets, exit, publish and fork.notify"
                    ),
                ));
            }
        }
        Ok(())
    }
}

fn yes_or_no(key: &str, value: &str) -> Result<bool> {
    value
        .parse()
        .map_err(|_| wrong(key, value, "true or false"))
}

fn wrong(key: &str, value: &str, allowed: &str) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        format!("annotation {PREFIX}{key}: {value:?} must be {allowed}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(annotations: &[(&str, &str)]) -> Result<Policy> {
        let annotations = annotations
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect();
        Policy::new(&annotations, &Config::default())
    }

    #[test]
    fn annotations_go_over_the_configuration() {
        let default = policy(&[("io.kubernetes.cri.sandbox-id", "x")]).unwrap();
        assert_eq!(default.tcp, TcpPolicy::Close);
        assert!(default.file_locks && !default.exit);
        let set = policy(&[
            ("dev.worldshim.tcp", "established"),
            ("dev.worldshim.file-locks", "false"),
            ("dev.worldshim.exit", "true"),
            ("dev.worldshim.external-unix-sockets", "true"),
        ])
        .unwrap();
        assert_eq!(set.tcp, TcpPolicy::Established);
        assert!(!set.file_locks && set.exit && set.external_unix_sockets);
    }

    #[test]
    fn mistakes_are_told() {
        for (key, value) in [
            ("dev.worldshim.tcp", "keep"),
            ("dev.worldshim.exit", "yes"),
            ("dev.worldshim.tpc", "close"),
        ] {
            let error = policy(&[(key, value)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(key), "{error}");
        }
    }
}
