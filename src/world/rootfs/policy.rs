//! What a world may put on a host.
//!
//! A world is as trusted as whoever could write to it. The policy says what
//! its rootfs may contain beyond ordinary files; what it forbids makes the
//! whole restore fail before the host changes. Nothing is left out in silence.

use super::entry::{Device, Entry, Kind};
use super::overlay::{self, Layering};
use crate::{Error, ErrorKind, Result};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

const SETUID_OR_SETGID: u32 = 0o6000;

/// What a world's rootfs may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Which device nodes.
    pub devices: DevicePolicy,
    /// Whether programs that give privileges.
    pub privileged: Privileged,
}

/// What to do about setuid and setgid files and file capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Privileged {
    /// Bring them back: the world was written by this host's root, or the
    /// container may run what its image could have brought just as well.
    #[default]
    Keep,
    /// Refuse a world that has any.
    Refuse,
}

/// Device rules in the order of the OCI spec: the last one that matches wins,
/// and none that matches means no.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DevicePolicy(pub Vec<DeviceRule>);

/// One device rule; `None` matches anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    /// Whether matching nodes may be made.
    pub allow: bool,
    /// Only block (`true`) or only character (`false`) devices.
    pub block: Option<bool>,
    /// Only this major number.
    pub major: Option<i64>,
    /// Only this minor number.
    pub minor: Option<i64>,
}

impl DevicePolicy {
    /// The rules of a spec's `linux.resources.devices` that speak of making
    /// nodes (access `m`).
    pub fn from_spec(rules: &[LinuxDeviceCgroup]) -> DevicePolicy {
        let any = |number: Option<i64>| number.filter(|&number| number >= 0);
        let rules = rules.iter().filter(|rule| {
            rule.access()
                .as_deref()
                .is_none_or(|access| access.is_empty() || access.contains('m'))
        });
        DevicePolicy(
            rules
                .map(|rule| DeviceRule {
                    allow: rule.allow(),
                    block: match rule.typ() {
                        Some(LinuxDeviceType::B) => Some(true),
                        Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(false),
                        _ => None,
                    },
                    major: any(rule.major()),
                    minor: any(rule.minor()),
                })
                .collect(),
        )
    }

    fn allows(&self, block: bool, device: Device) -> bool {
        let matches = |rule: &&DeviceRule| {
            rule.block.is_none_or(|only| only == block)
                && rule
                    .major
                    .is_none_or(|only| only == i64::from(device.major))
                && rule
                    .minor
                    .is_none_or(|only| only == i64::from(device.minor))
        };
        self.0
            .iter()
            .rev()
            .find(matches)
            .is_some_and(|rule| rule.allow)
    }
}

impl Policy {
    /// Whether `entry` may be brought back into a layer of this kind.
    pub(super) fn check(&self, entry: &Entry, layering: Layering) -> Result<()> {
        let refuse = |kind, why: String| Err(Error::new(kind, format!("{}: {why}", entry.path)));
        match entry.kind {
            Kind::CharDevice(device) if !self.devices.allows(false, device) => {
                return refuse(ErrorKind::Obstacle, forbidden("character", device));
            }
            Kind::BlockDevice(device) if !self.devices.allows(true, device) => {
                return refuse(ErrorKind::Obstacle, forbidden("block", device));
            }
            Kind::Opaque if layering == Layering::Plain => {
                let why = "the world's files stand on image layers, this rootfs is one directory";
                return refuse(ErrorKind::ForeignWorld, why.into());
            }
            _ => {}
        }
        for (name, _) in &entry.meta.xattrs {
            if let Some(private) = layering.private_name(name)
                && !overlay::may_travel(private)
            {
                let why = format!("the attribute {} belongs to overlayfs", name.escape_ascii());
                return refuse(ErrorKind::CorruptWorld, why);
            }
        }
        if self.privileged == Privileged::Refuse && gives_privileges(entry) {
            let why =
                "gives privileges (setuid, setgid or file capabilities), which the policy forbids";
            return refuse(ErrorKind::Obstacle, why.into());
        }
        Ok(())
    }
}

fn forbidden(what: &str, device: Device) -> String {
    let Device { major, minor } = device;
    format!("the container's spec does not allow to make the {what} device {major}:{minor}")
}

fn gives_privileges(entry: &Entry) -> bool {
    matches!(entry.kind, Kind::File { .. })
        && (entry.meta.mode & SETUID_OR_SETGID != 0
            || entry
                .meta
                .xattrs
                .iter()
                .any(|(name, _)| name == b"security.capability"))
}
