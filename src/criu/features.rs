//! CRIU's version and what it and the kernel can do together.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::driver::Criu;
use super::known_version::{self, Program};
use super::log;
use super::rpc::{self, RequestType};
use crate::error::{Error, ErrorKind, IoContext, Result};

/// The oldest CRIU that this project is tested with.
pub const OLDEST: Version = Version {
    major: 4,
    minor: 1,
    sublevel: 0,
};

/// Where CRIU keeps what it found out about the kernel.
const KERNEL_FACTS: &str = "/run/criu.kdat";

/// A version of CRIU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
    /// The third number, 0 where there is none.
    pub sublevel: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        match self.sublevel {
            0 => Ok(()),
            sublevel => write!(f, ".{sublevel}"),
        }
    }
}

/// What CRIU and the kernel can do together, beyond a plain dump and restore.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// Changes of memory can be tracked: pre-dump works.
    pub mem_track: bool,
    /// Memory can be brought back when it is touched.
    pub lazy_pages: bool,
    /// Reused process ids can be told apart between pre-dumps.
    pub pidfd_store: bool,
}

impl Criu {
    /// The program's version; it is asked once, which takes about 10 ms.
    pub fn version(&self) -> Result<Version> {
        let program = Program::at(self.path());
        if let Some(version) = program.as_ref().and_then(known_version::recall) {
            return Ok(version);
        }
        let version = self.ask_version()?;
        if let Some(program) = program {
            known_version::keep(program, version);
        }
        Ok(version)
    }

    fn ask_version(&self) -> Result<Version> {
        let answer = self.ask(rpc::Request {
            kind: RequestType::Version.into(),
            ..rpc::Request::default()
        })?;
        let numbers = answer.version.unwrap_or_default();
        let number = |value: i32| u32::try_from(value).unwrap_or(0);
        Ok(Version {
            major: number(numbers.major),
            minor: number(numbers.minor),
            sublevel: number(numbers.sublevel.unwrap_or(0)),
        })
    }

    /// Fails when the program is older than [`OLDEST`].
    pub fn require_version(&self) -> Result<Version> {
        let version = self.version()?;
        if version < OLDEST {
            let path = self.path().display();
            let text = format!("{path} is CRIU {version}; {OLDEST} or later is needed");
            return Err(Error::new(ErrorKind::HostUnfit, text));
        }
        Ok(version)
    }

    /// Has CRIU find out about the kernel what it keeps until the next boot.
    ///
    /// Otherwise its first request does it: 50 ms and more, and with programs
    /// (`iptables -L`) that leave tables in the network namespace it runs in.
    pub fn know_kernel(&self) -> Result<()> {
        match Path::new(KERNEL_FACTS).exists() {
            true => Ok(()),
            false => self.features().map(drop),
        }
    }

    /// Asks kernel and program. Needs root.
    pub fn features(&self) -> Result<Features> {
        let answer = self.ask(rpc::Request {
            kind: RequestType::FeatureCheck.into(),
            features: Some(rpc::FeatureSet {
                mem_track: Some(true),
                lazy_pages: Some(true),
                pidfd_store: Some(true),
            }),
            ..rpc::Request::default()
        })?;
        let found = answer.features.unwrap_or_default();
        Ok(Features {
            mem_track: found.mem_track.unwrap_or(false),
            lazy_pages: found.lazy_pages.unwrap_or(false),
            pidfd_store: found.pidfd_store.unwrap_or(false),
        })
    }

    /// `criu check`: whether the kernel can dump and restore at all. Needs root.
    pub fn check(&self) -> Result<()> {
        let output = Command::new(self.path())
            .arg("check")
            .stdin(Stdio::null())
            .output()
            .context(|| format!("run {} check", self.path().display()))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let text = "this kernel lacks what CRIU needs: `criu check` fails";
        let failure = log::failure(text, &said);
        Err(Error::new(ErrorKind::HostUnfit, failure.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_and_print() {
        let version = |major, minor, sublevel| Version {
            major,
            minor,
            sublevel,
        };
        assert!(version(4, 1, 1) > OLDEST);
        assert!(version(3, 19, 0) < OLDEST);
        assert_eq!(version(4, 2, 0).to_string(), "4.2");
        assert_eq!(version(4, 1, 1).to_string(), "4.1.1");
    }
}
