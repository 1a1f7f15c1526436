//! What the siblings are to be, before anything is made.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use oci_spec::runtime::{LinuxDeviceCgroup, Spec};
use time::OffsetDateTime;

use super::source::Source;
use super::{Args, Memory, Tcp, memory, nonsense};
use crate::cli::restore::{self, image};
use crate::containerd::{Container, Namespace, Streams};
use crate::error::Result;
use crate::store::Lease;
use crate::world::fork::{
    EXPIRES_LABEL, FORK_LABEL, INDEX_LABEL, NOTIFY, Notify, Sibling, in_text,
};
use crate::world::trust::{self, Wishes};

/// The longest hostname that Linux takes, in bytes.
const LONGEST_HOSTNAME: usize = 64;

/// All siblings, and what they have in common.
pub(super) struct Plan {
    pub snapshotter: String,
    /// Of the image's layers.
    pub chain_id: String,
    /// What containerd calls the image.
    pub image: String,
    pub streams: Streams,
    /// In the order of their numbers.
    pub containers: Vec<Container>,
    pub variables_left_out: Vec<String>,
}

impl Plan {
    /// Everything that would fail all siblings alike fails here.
    pub fn new(
        args: &Args,
        source: &Source,
        lease: &Lease,
        namespace: &Namespace,
        fork: &str,
        expires: Option<OffsetDateTime>,
    ) -> Result<Plan> {
        if args.tcp == Tcp::Heir && args.tcp_heir >= args.count {
            let text = format!("there is no sibling {} to be the heir", args.tcp_heir);
            return Err(nonsense(text));
        }
        for warning in restore::suits(&source.manifest)? {
            tracing::warn!("{warning}");
        }
        let (base, chain_id) = restore::base(&source.manifest)?;
        let world = source.spec(lease)?;
        let notify = notify(args, &world)?;
        let (artifact, manifest) = (&source.artifact, &source.manifest);
        let image = image::find(namespace, base, &chain_id, artifact, manifest)?;
        let mut plan = Plan {
            snapshotter: base.snapshotter.clone(),
            chain_id,
            streams: Streams::to_log(args.log_uri.as_deref()),
            image: image.name.clone(),
            containers: Vec::new(),
            variables_left_out: Vec::new(),
        };
        let mut labels = restore::labels(&args.label, &source.manifest, source.digest)?;
        labels.insert(FORK_LABEL.to_owned(), fork.to_owned());
        if let Some(expires) = expires {
            labels.insert(EXPIRES_LABEL.to_owned(), in_text(expires));
        }
        let memory = match args.memory() {
            Memory::Eager => None,
            Memory::Lazy => Some(memory::server_of(lease.store(), &source.digest)?),
        };
        for index in 0..args.count {
            let sibling = Sibling {
                fork: fork.to_owned(),
                index,
                parent: source.digest,
                world: source.manifest.checksum,
                memory,
                expires,
                paused: args.paused,
                notify: notify.clone(),
            };
            plan.add(args, source, &world, &labels, &sibling, namespace)?;
        }
        let store = lease.store();
        image.provide(namespace, store, &source.artifact, base, &plan.chain_id)?;
        Ok(plan)
    }

    fn add(
        &mut self,
        args: &Args,
        source: &Source,
        world: &Spec,
        labels: &BTreeMap<String, String>,
        sibling: &Sibling,
        namespace: &Namespace,
    ) -> Result<()> {
        let container = &source.manifest.container;
        let id = match &args.name_prefix {
            Some(prefix) => format!("{prefix}-{}", sibling.index),
            None => format!("{}-{}-{}", container.id, sibling.fork, sibling.index),
        };
        let hostname = hostname(&args.hostname, &id, sibling.index)?;
        let (spec, left_out) = trust::spec_for(
            world,
            &Wishes {
                id: id.clone(),
                namespace: namespace.name().to_owned(),
                hostname: Some(hostname),
                env: args.env.clone(),
                tcp_established: args.tcp == Tcp::Heir && args.tcp_heir == sibling.index,
                annotations: sibling.annotations(),
                trust: args.trust,
            },
        )?;
        let mut labels = labels.clone();
        labels.insert(INDEX_LABEL.to_owned(), sibling.index.to_string());
        self.variables_left_out = left_out;
        self.containers.push(Container {
            snapshot_key: id.clone(),
            id,
            labels,
            image: self.image.clone(),
            runtime: container.runtime.clone(),
            snapshotter: self.snapshotter.clone(),
            created: None,
            spec,
        });
        Ok(())
    }

    /// The rules of devices, which are the same for all.
    pub fn device_rules(&self) -> Vec<LinuxDeviceCgroup> {
        let first = self.containers.first();
        let linux = first.and_then(|container| container.spec.linux().clone());
        let resources = linux.and_then(|linux| linux.resources().clone());
        resources
            .and_then(|resources| resources.devices().clone())
            .unwrap_or_default()
    }
}

/// As it is asked for, or as the container that the world was made of wished it.
fn notify(args: &Args, world: &Spec) -> Result<Option<Notify>> {
    let annotations = world.annotations().as_ref();
    let wished = annotations.and_then(|all| all.get(NOTIFY));
    let notify = match &args.notify {
        Some(notify) => Some(notify.clone()),
        None => wished.map(|text| text.parse()).transpose()?,
    };
    match (args.paused, &notify) {
        (true, Some(Notify::Exec(_))) => Err(nonsense(
            "a sibling that is paused cannot run a program: with --paused, notify by a signal",
        )),
        _ => Ok(notify),
    }
}

fn hostname(pattern: &str, id: &str, index: u32) -> Result<String> {
    let name = pattern
        .replace("{id}", id)
        .replace("{index}", &index.to_string());
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    match (1..=LONGEST_HOSTNAME).contains(&name.len()) && name.bytes().all(allowed) {
        true => Ok(name),
        false => Err(nonsense(format!(
            "{name:?} cannot be a hostname (1 to {LONGEST_HOSTNAME} letters, digits, '-', '.', \
             '_'): give another --hostname"
        ))),
    }
}

/// A time span in words such as `90s`, `10m`, `1h30m`.
pub(in crate::cli) fn duration(text: &str) -> std::result::Result<Duration, String> {
    let bad = || format!("{text:?} is no time such as 90s, 10m, 2h or 1d");
    let (mut seconds, mut digits) = (0u64, String::new());
    let mut units_seen = BTreeSet::new();
    for c in text.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86400,
            _ => return Err(bad()),
        };
        let number: u64 = digits.parse().map_err(|_| bad())?;
        digits.clear();
        let part = number.checked_mul(unit).ok_or_else(bad)?;
        seconds = seconds.checked_add(part).ok_or_else(bad)?;
        if !units_seen.insert(unit) {
            return Err(bad());
        }
    }
    match digits.is_empty() && seconds > 0 && seconds < 100 * 365 * 86400 {
        true => Ok(Duration::from_secs(seconds)),
        false => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_write_them() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        for text in ["", "10", "m", "1x", "0s", "1m1m", "99999999999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hostnames_have_a_pattern() {
        assert_eq!(hostname("web-{index}", "x", 7).unwrap(), "web-7");
        assert_eq!(hostname("{id}.{index}", "x", 7).unwrap(), "x.7");
        assert!(hostname("{id}", &"x".repeat(65), 0).is_err());
        assert!(hostname("a b", "x", 0).is_err());
    }
}
