//! The environment of the first process, and its circumstances.
//!
//! A value that was redacted in either world is never shown, only that it
//! differs. Fingerprints have a key of their host: those of two hosts always
//! differ.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::listing::{Change, Listing};
use crate::world::env::{EnvPart, EnvVar};
use crate::world::fingerprint::is_marker;
use crate::world::raw_text::RawText;

/// What differs in the environment.
#[derive(Debug, Default, Serialize)]
pub struct EnvironmentDiff {
    /// Variables, by name.
    pub variables: Listing<Variable>,
    /// Circumstances: host name, ids, limits, capabilities and so on.
    pub settings: Listing<Setting>,
}

impl EnvironmentDiff {
    /// Whether anything differs.
    pub fn differs(&self) -> bool {
        self.variables.differs() || self.settings.differs()
    }
}

/// A variable that differs.
#[derive(Debug, Serialize)]
pub struct Variable {
    /// Its name.
    pub name: RawText,
    /// Which one of several with this name, from 0 on.
    pub occurrence: usize,
    /// What happened to it.
    pub change: Change,
    /// Its value in the first world; not there if it was redacted.
    pub before: Option<RawText>,
    /// In the second.
    pub after: Option<RawText>,
    /// The value was redacted in one of the worlds, and is not shown.
    pub redacted: bool,
}

/// A circumstance that differs.
#[derive(Debug, Serialize)]
pub struct Setting {
    /// Where it is in `env.json`: `limits.RLIMIT_NOFILE.soft`.
    pub name: String,
    /// What happened to it.
    pub change: Change,
    /// As in the first world's `env.json`.
    pub before: Option<Value>,
    /// As in the second's.
    pub after: Option<Value>,
}

/// Parts of `env.json` that are no circumstances: the variables, and numbers of the kernel's.
const NO_SETTINGS: [&str; 3] = ["live", "namespaces", "spec"];

pub(super) fn compare(before: &EnvPart, after: &EnvPart) -> EnvironmentDiff {
    EnvironmentDiff {
        variables: variables(&before.live, &after.live),
        settings: settings(before, after),
    }
}

type ByName<'a> = BTreeMap<(&'a RawText, usize), &'a EnvVar>;

fn by_name(variables: &[EnvVar]) -> ByName<'_> {
    let mut seen: BTreeMap<&RawText, usize> = BTreeMap::new();
    let mut found = BTreeMap::new();
    for variable in variables {
        let count = seen.entry(&variable.name).or_default();
        found.insert((&variable.name, *count), variable);
        *count += 1;
    }
    found
}

fn variables(before: &[EnvVar], after: &[EnvVar]) -> Listing<Variable> {
    let (before, after) = (by_name(before), by_name(after));
    let mut names: Vec<_> = before.keys().chain(after.keys()).copied().collect();
    names.sort_unstable();
    names.dedup();
    let mut listing = Listing::default();
    for key in names {
        let (old, new) = (before.get(&key), after.get(&key));
        if old.map(|old| &old.value) == new.map(|new| &new.value) {
            continue;
        }
        let value = |variable: Option<&&EnvVar>| variable.and_then(|it| it.value.clone());
        let (old_value, new_value) = (value(old), value(new));
        let redacted = [&old_value, &new_value]
            .into_iter()
            .flatten()
            .any(|value| is_marker(&value.to_string()));
        let change = Change::of(old, new);
        let texts = [&old_value, &new_value].map(|value| value.as_ref().map_or(0, |v| v.0.len()));
        let variable = Variable {
            name: key.0.clone(),
            occurrence: key.1,
            change,
            before: old_value.filter(|_| !redacted),
            after: new_value.filter(|_| !redacted),
            redacted,
        };
        listing.push(change, variable, key.0.0.len() + texts[0] + texts[1]);
    }
    listing
}

fn settings(before: &EnvPart, after: &EnvPart) -> Listing<Setting> {
    let (before, after) = (flat(before), flat(after));
    let names = before.keys().chain(after.keys());
    let names: std::collections::BTreeSet<_> = names.collect();
    let mut listing = Listing::default();
    for name in names {
        let (old, new) = (before.get(name), after.get(name));
        if old == new {
            continue;
        }
        let change = Change::of(old, new);
        let texts = [old, new].map(|value| value.map_or(0, |value| value.to_string().len()));
        let setting = Setting {
            name: name.clone(),
            change,
            before: old.cloned(),
            after: new.cloned(),
        };
        listing.push(change, setting, name.len() + texts[0] + texts[1]);
    }
    listing
}

/// Every value by its path.
fn flat(part: &EnvPart) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    if let Ok(Value::Object(fields)) = serde_json::to_value(part) {
        for (name, value) in fields {
            if !NO_SETTINGS.contains(&name.as_str()) {
                flatten(name, value, &mut found);
            }
        }
    }
    found
}

/// `env.json` is at most a few levels deep.
fn flatten(name: String, value: Value, found: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                flatten(format!("{name}.{field}"), value, found);
            }
        }
        value => {
            found.insert(name, value);
        }
    }
}
