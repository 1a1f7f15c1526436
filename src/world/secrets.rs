//! Taking credentials out of the spec and env parts of a world.
//!
//! A value that looks like a credential is replaced as a whole by a marker with
//! a keyed fingerprint; its name is listed in the manifest. This is about the
//! parts that people read and tools show. **The images of the processes' memory
//! still hold every secret**: a world must be kept like a secret itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use super::credential::Rules;
pub use super::fingerprint::FingerprintKey;
use super::manifest::Redaction;
use crate::Result;

/// What counts as a credential, beside the built-in rules, and where the key is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecretsConfig {
    /// Patterns of names that are never replaced, whatever their value.
    pub allow_names: Vec<String>,
    /// Patterns of names whose values are credentials.
    pub deny_names: Vec<String>,
    /// Beginnings of values that are credentials.
    pub deny_values_prefixes: Vec<String>,
    /// File of the key for fingerprints; made at first use.
    pub fingerprint_key: PathBuf,
}

impl Default for SecretsConfig {
    fn default() -> SecretsConfig {
        SecretsConfig {
            allow_names: Vec::new(),
            deny_names: Vec::new(),
            deny_values_prefixes: Vec::new(),
            fingerprint_key: "/var/lib/worldshim/fingerprint.key".into(),
        }
    }
}

/// Replaces credentials and remembers their names.
pub struct Redactor {
    rules: Rules,
    key: FingerprintKey,
    found: BTreeSet<Redaction>,
}

impl Redactor {
    /// The rules and the key of a host. Makes the key file where there is none.
    pub fn new(config: &SecretsConfig) -> Result<Redactor> {
        let key = FingerprintKey::load_or_create(&config.fingerprint_key)?;
        Ok(Redactor::with_key(Rules::new(config)?, key))
    }

    /// Given rules and key.
    pub fn with_key(rules: Rules, key: FingerprintKey) -> Redactor {
        Redactor {
            rules,
            key,
            found: BTreeSet::new(),
        }
    }

    /// What takes the place of the value of a variable; none where it may stay.
    pub fn variable(&mut self, place: &str, name: &[u8], value: &[u8]) -> Option<String> {
        let secret = self.rules.is_secret(name, value);
        secret.then(|| self.replace(place, &String::from_utf8_lossy(name), value))
    }

    /// What takes the place of a text that only its own look can betray. `name` says in the
    /// manifest which one it was.
    pub fn text(&mut self, place: &str, name: &str, value: &[u8]) -> Option<String> {
        let secret = self.rules.is_secret_value(value);
        secret.then(|| self.replace(place, name, value))
    }

    /// Replaces entries of the form `NAME=value`.
    pub fn entries(&mut self, place: &str, entries: &mut [String]) {
        for (index, entry) in entries.iter_mut().enumerate() {
            match entry.split_once('=') {
                Some((name, value)) => {
                    if let Some(marker) = self.variable(place, name.as_bytes(), value.as_bytes()) {
                        *entry = format!("{name}={marker}");
                    }
                }
                None => {
                    let marker = self.text(place, &format!("[{index}]"), entry.as_bytes());
                    *entry = marker.unwrap_or_else(|| std::mem::take(entry));
                }
            }
        }
    }

    /// Replaces command line arguments: by their look, `--password=x` and `--password x`.
    pub fn arguments(&mut self, place: &str, args: &mut [String]) {
        let mut announced = None::<String>;
        for (index, arg) in args.iter_mut().enumerate() {
            let option = arg.starts_with('-');
            let marker = match (announced.take(), option) {
                (Some(name), false) if !arg.is_empty() => {
                    Some(self.replace(place, &name, arg.as_bytes()))
                }
                _ => self.text(place, &format!("[{index}]"), arg.as_bytes()),
            };
            match marker {
                Some(marker) => *arg = marker,
                None if option && self.rules.is_secret_name(arg) => announced = Some(arg.clone()),
                None => {}
            }
        }
    }

    /// Replaces the values of a map such as annotations or labels.
    pub fn map(&mut self, place: &str, map: &mut BTreeMap<String, String>) {
        for (name, value) in map {
            if let Some(marker) = self.variable(place, name.as_bytes(), value.as_bytes()) {
                *value = marker;
            }
        }
    }

    /// What was replaced so far, for [`super::manifest::Manifest::redacted`].
    pub fn found(&self) -> Vec<Redaction> {
        self.found.iter().cloned().collect()
    }

    fn replace(&mut self, place: &str, name: &str, value: &[u8]) -> String {
        self.found.insert(Redaction {
            name: name.to_string(),
            place: place.to_string(),
        });
        self.key.marker(value)
    }
}
