//! The env part: the environment of the init process as it is, and its
//! circumstances, read from `/proc/PID`.
//!
//! The environment is the block that the kernel knows; what a program changed
//! with `setenv` lives in its memory only. The directory `/proc/PID` is opened
//! once and everything is read through it: a process that ends meanwhile gives
//! an error, never the data of another one with the same number.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags, openat, readlinkat};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use super::raw_text::RawText;
use super::secrets::Redactor;
use crate::error::IoContext;
use crate::json::Limits;
use crate::{Error, ErrorKind, Result};

/// Name of the env part's file.
pub const FILE_NAME: &str = "env.json";
/// Limits on `env.json`. The kernel lets arguments and environment together be 6 MiB.
pub const LIMITS: Limits = Limits {
    bytes: 64 << 20,
    depth: 8,
    string: 48 << 20,
};
/// Largest environment that is captured, in bytes.
const MAX_ENVIRON: u64 = 8 << 20;

/// What `env.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvPart {
    /// Capability sets, 16 hexadecimal digits each, as in `/proc/PID/status`.
    pub capabilities: Capabilities,
    /// Working directory as the container sees it.
    pub cwd: RawText,
    /// NIS domain name of the UTS namespace.
    pub domainname: String,
    /// Group ids.
    pub gid: Ids,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Host name of the UTS namespace.
    pub hostname: String,
    /// Resource limits by their names in the OCI spec, `RLIMIT_NOFILE`.
    pub limits: BTreeMap<String, Limit>,
    /// The environment of the init process.
    pub live: Vec<EnvVar>,
    /// Namespaces by their names in `/proc/PID/ns`, and their inode numbers.
    pub namespaces: BTreeMap<String, u64>,
    /// Whether the process can never gain privileges.
    pub no_new_privs: bool,
    /// Seccomp mode: 0 none, 1 strict, 2 filter.
    pub seccomp: u32,
    /// The environment in the OCI spec.
    pub spec: Vec<EnvVar>,
    /// User ids.
    pub uid: Ids,
    /// File mode creation mask in octal, `0022`.
    pub umask: String,
}

/// One entry of an environment, in its order; names may occur twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvVar {
    /// What stands before the first `=`; the whole entry where there is none.
    pub name: RawText,
    /// What stands after it; none where there is no `=`.
    pub value: Option<RawText>,
}

/// The four ids of a kind that a process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ids {
    /// Effective.
    pub effective: u32,
    /// For access to files.
    pub filesystem: u32,
    /// Real.
    pub real: u32,
    /// Saved.
    pub saved: u32,
}

/// Capability sets of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Capabilities {
    /// `CapAmb`.
    pub ambient: String,
    /// `CapBnd`.
    pub bounding: String,
    /// `CapEff`.
    pub effective: String,
    /// `CapInh`.
    pub inheritable: String,
    /// `CapPrm`.
    pub permitted: String,
}

/// A resource limit in the unit of its kind; none is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limit {
    /// Hard limit.
    pub hard: Option<u64>,
    /// Soft limit.
    pub soft: Option<u64>,
}

impl EnvVar {
    fn parse(entry: &[u8]) -> EnvVar {
        match entry.iter().position(|byte| *byte == b'=') {
            Some(at) => EnvVar {
                name: RawText::from(&entry[..at]),
                value: Some(RawText::from(&entry[at + 1..])),
            },
            None => EnvVar {
                name: RawText::from(entry),
                value: None,
            },
        }
    }
}

impl EnvPart {
    /// Reads the circumstances of the process `pid` (as this process sees it). Nothing is
    /// redacted yet.
    pub fn gather(pid: i32, spec: &Spec) -> Result<EnvPart> {
        let process = Process::open(pid)?;
        let gathered = EnvPart::read(&process, spec);
        gathered.map_err(|error| error.within(format!("environment of process {pid}")))
    }

    fn read(process: &Process, spec: &Spec) -> Result<EnvPart> {
        let status = process.text("status")?;
        let status = Status(&status);
        let (hostname, domainname) = names_of_uts(process)?;
        Ok(EnvPart {
            capabilities: Capabilities {
                ambient: status.field("CapAmb")?.to_string(),
                bounding: status.field("CapBnd")?.to_string(),
                effective: status.field("CapEff")?.to_string(),
                inheritable: status.field("CapInh")?.to_string(),
                permitted: status.field("CapPrm")?.to_string(),
            },
            cwd: process.link("cwd")?,
            domainname,
            gid: status.ids("Gid")?,
            groups: status.numbers("Groups")?,
            hostname,
            limits: parse_limits(&process.text("limits")?),
            live: split_environ(&process.bytes("environ", MAX_ENVIRON)?),
            namespaces: process.namespaces()?,
            no_new_privs: status.field("NoNewPrivs")? == "1",
            seccomp: status.number("Seccomp")?,
            spec: spec_env(spec),
            uid: status.ids("Uid")?,
            umask: status.field("Umask")?.to_string(),
        })
    }

    /// Replaces what looks like a credential.
    pub fn redact(&mut self, redactor: &mut Redactor) {
        redact_vars("env.live", &mut self.live, redactor);
        redact_vars("env.spec", &mut self.spec, redactor);
    }

    /// The part's file.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        crate::json::to_bytes(self)
    }

    /// Reads the part's file from untrusted bytes; [`ErrorKind::CorruptWorld`] where it is wrong.
    pub fn parse(bytes: &[u8]) -> Result<EnvPart> {
        crate::json::parse(bytes, &LIMITS).map_err(|error| error.within(FILE_NAME))
    }
}

fn redact_vars(place: &str, vars: &mut [EnvVar], redactor: &mut Redactor) {
    for (index, var) in vars.iter_mut().enumerate() {
        match &mut var.value {
            Some(value) => {
                if let Some(marker) = redactor.variable(place, &var.name.0, &value.0) {
                    *value = RawText::from(marker);
                }
            }
            None => {
                if let Some(marker) = redactor.text(place, &format!("[{index}]"), &var.name.0) {
                    var.name = RawText::from(marker);
                }
            }
        }
    }
}

fn spec_env(spec: &Spec) -> Vec<EnvVar> {
    let env = spec
        .process()
        .as_ref()
        .and_then(|process| process.env().as_ref());
    env.into_iter()
        .flatten()
        .map(|entry| EnvVar::parse(entry.as_bytes()))
        .collect()
}

/// The entries end in a zero byte each. Programs that overwrite the block to change their
/// title leave runs of zeros, which are not entries.
fn split_environ(block: &[u8]) -> Vec<EnvVar> {
    block
        .split(|byte| *byte == 0)
        .filter(|entry| !entry.is_empty())
        .map(EnvVar::parse)
        .collect()
}

/// `/proc/PID`, opened.
struct Process {
    dir: OwnedFd,
}

impl Process {
    fn open(pid: i32) -> Result<Process> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(format!("/proc/{pid}"), flags, Mode::empty())
            .context(|| format!("look at process {pid}"))?;
        Ok(Process { dir })
    }

    fn bytes(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file =
            openat(&self.dir, name, flags, Mode::empty()).context(|| format!("open {name}"))?;
        let mut bytes = Vec::new();
        File::from(file)
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .context(|| format!("read {name}"))?;
        match bytes.len() as u64 > limit {
            true => Err(Error::new(
                ErrorKind::Obstacle,
                format!("{name} is larger than {limit} bytes"),
            )),
            false => Ok(bytes),
        }
    }

    fn text(&self, name: &str) -> Result<String> {
        let bytes = self.bytes(name, 1 << 20)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn link(&self, name: &str) -> Result<RawText> {
        let target = readlinkat(&self.dir, name, Vec::new()).context(|| format!("read {name}"))?;
        Ok(RawText(target.into_bytes()))
    }

    fn namespaces(&self) -> Result<BTreeMap<String, u64>> {
        const KINDS: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
        let mut namespaces = BTreeMap::new();
        for kind in KINDS {
            match self.link(&format!("ns/{kind}")) {
                Ok(target) => {
                    let inode = inode_of(&target.to_string()).ok_or_else(|| unreadable("ns"))?;
                    namespaces.insert(kind.to_string(), inode);
                }
                // The kernel may be built without it.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(namespaces)
    }
}

/// `net:[4026531840]` has the inode 4026531840.
fn inode_of(link: &str) -> Option<u64> {
    let (_, inode) = link.strip_suffix(']')?.split_once(":[")?;
    inode.parse().ok()
}

/// `/proc/PID/status`.
struct Status<'a>(&'a str);

impl<'a> Status<'a> {
    fn field(&self, name: &str) -> Result<&'a str> {
        self.0
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
            .ok_or_else(|| unreadable(name))
    }

    fn numbers(&self, name: &str) -> Result<Vec<u32>> {
        let numbers = self.field(name)?.split_whitespace();
        numbers
            .map(|number| number.parse().map_err(|_| unreadable(name)))
            .collect()
    }

    fn number(&self, name: &str) -> Result<u32> {
        self.field(name)?.parse().map_err(|_| unreadable(name))
    }

    fn ids(&self, name: &str) -> Result<Ids> {
        match self.numbers(name)?[..] {
            [real, effective, saved, filesystem] => Ok(Ids {
                effective,
                filesystem,
                real,
                saved,
            }),
            _ => Err(unreadable(name)),
        }
    }
}

fn unreadable(name: &str) -> Error {
    Error::new(
        ErrorKind::HostUnfit,
        format!("this kernel's /proc shows no readable {name}"),
    )
}

/// `Max open files   1024   4096   files`: the names end where two spaces begin.
fn parse_limits(text: &str) -> BTreeMap<String, Limit> {
    const NAMES: [(&str, &str); 16] = [
        ("Max cpu time", "RLIMIT_CPU"),
        ("Max file size", "RLIMIT_FSIZE"),
        ("Max data size", "RLIMIT_DATA"),
        ("Max stack size", "RLIMIT_STACK"),
        ("Max core file size", "RLIMIT_CORE"),
        ("Max resident set", "RLIMIT_RSS"),
        ("Max processes", "RLIMIT_NPROC"),
        ("Max open files", "RLIMIT_NOFILE"),
        ("Max locked memory", "RLIMIT_MEMLOCK"),
        ("Max address space", "RLIMIT_AS"),
        ("Max file locks", "RLIMIT_LOCKS"),
        ("Max pending signals", "RLIMIT_SIGPENDING"),
        ("Max msgqueue size", "RLIMIT_MSGQUEUE"),
        ("Max nice priority", "RLIMIT_NICE"),
        ("Max realtime priority", "RLIMIT_RTPRIO"),
        ("Max realtime timeout", "RLIMIT_RTTIME"),
    ];
    let mut limits = BTreeMap::new();
    for line in text.lines() {
        for (shown, name) in NAMES {
            let Some(rest) = line.strip_prefix(shown) else {
                continue;
            };
            let mut numbers = rest.split_whitespace().map(|number| number.parse().ok());
            if let (Some(soft), Some(hard)) = (numbers.next(), numbers.next()) {
                limits.insert(name.to_string(), Limit { hard, soft });
            }
        }
    }
    limits
}

/// Host name and domain name in the process's UTS namespace.
///
/// Only a thread inside of a UTS namespace can read them, so one is made for the purpose.
fn names_of_uts(process: &Process) -> Result<(String, String)> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let uts = openat(&process.dir, "ns/uts", flags, Mode::empty()).context(|| "open ns/uts")?;
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| uts_names_from_inside(uts.as_fd()));
        reader.join().unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Internal,
                "the thread that reads the host name panicked",
            ))
        })
    })
}

fn uts_names_from_inside(uts: BorrowedFd) -> Result<(String, String)> {
    move_into_link_name_space(uts, Some(LinkNameSpaceType::HostNameAndNISDomainName))
        .context(|| "enter the UTS namespace")?;
    let uname = rustix::system::uname();
    Ok((
        uname.nodename().to_string_lossy().into_owned(),
        uname.domainname().to_string_lossy().into_owned(),
    ))
}
