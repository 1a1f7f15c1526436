//! What a sibling of a fork is told: annotations of its spec, from `world fork` to the shim.
//!
//! | annotation | value |
//! |---|---|
//! | `dev.worldshim.fork` | the fork's id, 12 hexadecimal digits |
//! | `dev.worldshim.fork.index` | which sibling, from 0 |
//! | `dev.worldshim.fork.parent` | digest of the world's manifest in the store |
//! | `dev.worldshim.fork.world` | checksum of the `world.json` that it is brought back from |
//! | `dev.worldshim.fork.memory` | the name, a digest, of the page server that its memory comes from |
//! | `dev.worldshim.fork.expires` | when it is ended, RFC 3339 |
//! | `dev.worldshim.fork.paused` | `true`: it stands still until it is resumed |
//! | `dev.worldshim.fork.notify` | how the processes are told: `signal:NAME`, `exec:PATH ARGS` |
//!
//! They count for the restore of that one world only. In a container that is made
//! anew or brought back from another world (a client may copy a spec with all its
//! annotations) they are leftovers of an earlier life, and mean nothing. Nothing in
//! them is secret: a spec can be read by many. The seed is made by the shim.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::policy::PREFIX;
use super::verify::Verified;
use crate::digest::Digest;
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

/// Label of a sibling: the fork's id.
pub const FORK_LABEL: &str = "dev.worldshim.fork";
/// Label of a sibling: its number.
pub const INDEX_LABEL: &str = "dev.worldshim.fork.index";
/// Label of a sibling that is ended by itself: when.
pub const EXPIRES_LABEL: &str = "dev.worldshim.fork.expires";
/// The annotation that says how to notify, also of a container that is to be forked.
pub const NOTIFY: &str = "dev.worldshim.fork.notify";

/// The annotation, without our prefix, of a container whose topmost lower layer holds
/// the files of a world: what `world fork` has made once for all siblings.
pub const ROOTFS: &str = "rootfs";
/// Its only value.
pub const COMMITTED: &str = "committed";

/// Digits of a fork's id.
const ID_DIGITS: usize = 12;

/// How the processes of a sibling are told that they are one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Notify {
    /// A signal to init, when it runs.
    Signal(i32),
    /// A program in the container, with its arguments.
    Exec(Vec<String>),
}

/// What one sibling is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sibling {
    /// The fork's id.
    pub fork: String,
    /// Its number.
    pub index: u32,
    /// The world's digest in the store.
    pub parent: Digest,
    /// Checksum of the world's `world.json`.
    pub world: Digest,
    /// The page server that its memory comes from, where not all is there from the start.
    pub memory: Option<Digest>,
    /// When it is to be ended.
    pub expires: Option<OffsetDateTime>,
    /// It is not to run before it is resumed.
    pub paused: bool,
    /// How its processes are told.
    pub notify: Option<Notify>,
}

impl Sibling {
    /// What a spec says; nothing where it does not speak of a fork of the world with this
    /// checksum.
    ///
    /// [`ErrorKind::InvalidInput`] where it does, and makes no sense.
    pub fn of(spec: &Spec, world: &Digest) -> Result<Option<Sibling>> {
        let none = HashMap::new();
        let annotations = spec.annotations().as_ref().unwrap_or(&none);
        let get = |key: &str| annotations.get(&format!("{PREFIX}{key}"));
        let Some(fork) = get("fork") else {
            return Ok(None);
        };
        let need = |key: &str| {
            get(key).ok_or_else(|| {
                let text = format!("annotation {PREFIX}{key} is missing beside {PREFIX}fork");
                Error::new(ErrorKind::InvalidInput, text)
            })
        };
        let sibling = Sibling {
            fork: id(fork)?,
            index: parsed("fork.index", need("fork.index")?)?,
            parent: parsed("fork.parent", need("fork.parent")?)?,
            world: parsed("fork.world", need("fork.world")?)?,
            memory: get("fork.memory")
                .map(|text| parsed("fork.memory", text))
                .transpose()?,
            expires: get("fork.expires").map(|text| time(text)).transpose()?,
            paused: get("fork.paused").is_some_and(|text| text == "true"),
            notify: get("fork.notify").map(|text| text.parse()).transpose()?,
        };
        if sibling.paused && matches!(sibling.notify, Some(Notify::Exec(_))) {
            let text = "a sibling that is paused cannot run a program: notify it by a signal";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        Ok(Some(sibling).filter(|sibling| sibling.world == *world))
    }

    /// The annotations that say so.
    pub fn annotations(&self) -> Vec<(String, String)> {
        let mut all = vec![
            ("fork", self.fork.clone()),
            ("fork.index", self.index.to_string()),
            ("fork.parent", self.parent.to_string()),
            ("fork.world", self.world.to_string()),
        ];
        if let Some(server) = self.memory {
            all.push(("fork.memory", server.to_string()));
        }
        if let Some(expires) = self.expires {
            all.push(("fork.expires", in_text(expires)));
        }
        if self.paused {
            all.push(("fork.paused", "true".to_owned()));
        }
        if let Some(notify) = &self.notify {
            all.push(("fork.notify", notify.to_string()));
        }
        let named = all.into_iter();
        named
            .map(|(key, value)| (format!("{PREFIX}{key}"), value))
            .collect()
    }
}

/// The page server that a container was made with, and the id of its fork.
pub fn page_server(spec: &Spec) -> Result<Option<(Digest, String)>> {
    let get = |key: &str| {
        let annotations = spec.annotations().as_ref()?;
        annotations.get(&format!("{PREFIX}{key}"))
    };
    match (get("fork.memory"), get("fork")) {
        (Some(server), Some(fork)) => Ok(Some((parsed("fork.memory", server)?, id(fork)?))),
        _ => Ok(None),
    }
}

/// Where `world fork` notes what of a world it has verified.
fn verified_file(world: &Path) -> Option<PathBuf> {
    Some(world.parent()?.join("verified.json"))
}

/// Notes that the world directory `world`, which others do not reach, was verified.
pub fn note_verified(world: &Path, verified: &Verified) -> Result<()> {
    let path = verified_file(world).unwrap_or_default();
    let bytes = crate::json::to_bytes(verified)?;
    std::fs::write(&path, bytes).context(|| format!("write {}", path.display()))
}

/// What was noted; nothing where it cannot be read.
pub(super) fn verified(world: &Path) -> Option<Verified> {
    let bytes = std::fs::read(verified_file(world)?).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Whether an annotation of ours is about forks and makes sense; `None` where it is about
/// something else. `key` is without our prefix.
pub(super) fn check(key: &str, value: &str) -> Option<Result<()>> {
    let checked = match key {
        "fork" => id(value).map(drop),
        "fork.index" => parsed::<u32>(key, value).map(drop),
        "fork.memory" | "fork.parent" | "fork.world" => parsed::<Digest>(key, value).map(drop),
        "fork.expires" => time(value).map(drop),
        "fork.paused" => parsed::<bool>(key, value).map(drop),
        "fork.notify" => value.parse::<Notify>().map(drop),
        _ => return None,
    };
    Some(checked)
}

pub(super) fn check_rootfs(value: &str) -> Result<()> {
    match value == COMMITTED {
        true => Ok(()),
        false => Err(wrong(ROOTFS, value)),
    }
}

/// Whether a container says that the topmost layer below its own holds the files of a world.
pub fn stands_on_files(spec: &Spec) -> bool {
    let annotations = spec.annotations().as_ref();
    annotations.is_some_and(|all| all.contains_key(&format!("{PREFIX}{ROOTFS}")))
}

/// Corrects what the spec says of that. True where it was wrong.
pub(super) fn say_stands_on_files(spec: &mut Spec, stands: bool) -> bool {
    if stands_on_files(spec) == stands {
        return false;
    }
    let mut annotations = spec.annotations().clone().unwrap_or_default();
    let key = format!("{PREFIX}{ROOTFS}");
    match stands {
        true => annotations.insert(key, COMMITTED.to_owned()),
        false => annotations.remove(&key),
    };
    spec.set_annotations(Some(annotations));
    true
}

/// A new fork's id.
pub fn new_id() -> Result<String> {
    let mut bytes = [0; ID_DIGITS / 2];
    fill_random(&mut bytes)?;
    Ok(hex::encode(bytes))
}

/// Fresh bytes from the kernel.
pub fn fill_random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes)
        .map_err(|error| Error::caused_by(ErrorKind::HostUnfit, "get random bytes", error))
}

/// A time as labels and annotations have it.
pub fn in_text(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

fn id(text: &str) -> Result<String> {
    let digits = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    match digits && text.len() == ID_DIGITS {
        true => Ok(text.to_owned()),
        false => Err(wrong("fork", text)),
    }
}

fn time(text: &str) -> Result<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| wrong("fork.expires", text))
}

fn parsed<T: std::str::FromStr>(key: &str, text: &str) -> Result<T> {
    text.parse().map_err(|_| wrong(key, text))
}

fn wrong(key: &str, text: &str) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        format!("annotation {PREFIX}{key}: {text:?} makes no sense"),
    )
}

impl std::str::FromStr for Notify {
    type Err = Error;

    fn from_str(text: &str) -> Result<Notify> {
        let bad = || {
            Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "{NOTIFY}: {text:?} must be signal:NAME, such as signal:SIGUSR1, or \
                     exec:/PATH ARGUMENTS"
                ),
            )
        };
        match text.split_once(':') {
            Some(("signal", name)) => signal(name).map(Notify::Signal).ok_or_else(bad),
            Some(("exec", words)) => {
                let words: Vec<_> = words.split_whitespace().map(str::to_owned).collect();
                match words.first().is_some_and(|path| path.starts_with('/')) {
                    true => Ok(Notify::Exec(words)),
                    false => Err(bad()),
                }
            }
            _ => Err(bad()),
        }
    }
}

/// By its name, with or without SIG, or its number.
fn signal(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse() {
        return crate::sys::signal(number).map(|_| number);
    }
    let name = name.to_ascii_uppercase();
    let full = match name.starts_with("SIG") {
        true => name,
        false => format!("SIG{name}"),
    };
    full.parse::<nix::sys::signal::Signal>()
        .ok()
        .map(|signal| signal as i32)
}

impl std::fmt::Display for Notify {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Notify::Signal(number) => write!(out, "signal:{number}"),
            Notify::Exec(words) => write!(out, "exec:{}", words.join(" ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sibling() -> Sibling {
        Sibling {
            fork: "0123456789ab".into(),
            index: 3,
            parent: Digest::of(b"parent"),
            world: Digest::of(b"world"),
            memory: Some(Digest::of(b"server")),
            expires: Some(OffsetDateTime::UNIX_EPOCH),
            paused: true,
            notify: Some(Notify::Signal(10)),
        }
    }

    fn spec(annotations: Vec<(String, String)>) -> Spec {
        let mut spec = Spec::default();
        spec.set_annotations(Some(annotations.into_iter().collect()));
        spec
    }

    #[test]
    fn what_is_said_is_understood() {
        let sibling = sibling();
        let spec = spec(sibling.annotations());
        assert_eq!(
            Sibling::of(&spec, &sibling.world).unwrap(),
            Some(sibling.clone())
        );
        for (key, value) in sibling.annotations() {
            let key = key.strip_prefix(PREFIX).unwrap();
            check(key, &value).expect("ours").expect("right");
        }
    }

    #[test]
    fn of_another_world_it_means_nothing() {
        let spec = spec(sibling().annotations());
        assert_eq!(Sibling::of(&spec, &Digest::of(b"other")).unwrap(), None);
        assert_eq!(
            Sibling::of(&Spec::default(), &Digest::of(b"world")).unwrap(),
            None
        );
    }

    #[test]
    fn nonsense_is_told() {
        for (key, value) in [
            ("fork", "../x"),
            ("fork", "0123456789AB"),
            ("fork.index", "-1"),
            ("fork.parent", "md5:0"),
            ("fork.expires", "soon"),
            ("fork.paused", "maybe"),
            ("fork.notify", "signal:SIGNOTHING"),
            ("fork.notify", "exec:relative"),
            ("fork.notify", "mail:me"),
        ] {
            let error = check(key, value).expect("ours").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{key} {value}");
        }
        let mut lacking = sibling().annotations();
        lacking.retain(|(key, _)| !key.ends_with("parent"));
        assert!(Sibling::of(&spec(lacking), &Digest::of(b"world")).is_err());
        assert!(check("tcp", "close").is_none());
    }

    #[test]
    fn signals_by_name_and_number() {
        let notify = |text: &str| text.parse::<Notify>().unwrap();
        assert_eq!(notify("signal:SIGUSR1"), notify("signal:usr1"));
        assert_eq!(notify("signal:40"), Notify::Signal(40));
    }
}
