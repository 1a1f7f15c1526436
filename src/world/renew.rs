//! What makes a sibling somebody: a hostname in its files, a machine id, a generation.
//!
//! All of it is written when CRIU has brought the processes back and none of them runs yet.
//! Files of the rootfs are reached through the bundle's mount of it, where nothing of the
//! host is mounted over them; what the container mounts itself (`/run`) through its first
//! process's root. In both no path leaves the container's own files: see [`inside`].
//!
//! The seed is made here, from the kernel's random numbers, and is in no spec, log or world.

mod inside;

use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxIdMapping, Spec};
use serde::Serialize;

use super::fork::{self, Notify, Sibling};
use super::processes::on_own_thread;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::runtime::{self, Exec, Target};
use inside::Root;

/// The generation's folder in the container, and its file there.
const FOLDER: [&str; 2] = ["run", "worldshim"];
const GENERATION: &str = "generation";
/// Files that hold names; larger ones are something else, in bytes.
const MOST: u64 = 1 << 20;
const HOSTNAME: &str = "etc/hostname";
const HOSTS: &str = "etc/hosts";
const MACHINE_ID: &str = "etc/machine-id";
const DBUS_MACHINE_ID: &str = "var/lib/dbus/machine-id";
/// Bytes of a seed, and of a machine id.
const SEED: usize = 32;
const ID: usize = 16;

/// `/run/worldshim/generation`.
#[derive(Serialize)]
struct Generation<'a> {
    fork: &'a str,
    index: u32,
    parent: Digest,
    /// 32 fresh random bytes, hexadecimal.
    seed: String,
}

/// Who becomes whom.
pub struct Renewal<'a> {
    /// The sibling's container.
    pub target: &'a Target,
    /// Its spec.
    pub spec: &'a Spec,
    /// What it was told.
    pub sibling: &'a Sibling,
    /// The hostname that its processes had.
    pub old_hostname: Option<&'a str>,
}

impl Renewal<'_> {
    /// Writes all of it. `pid` is init, which does not run yet.
    pub fn before_it_runs(&self, pid: i32) -> Result<()> {
        self.files_of_the_rootfs()?;
        self.generation(pid).map_err(|error| {
            error.within(format!(
                "write /{}/{GENERATION} in the container",
                FOLDER.join("/")
            ))
        })
    }

    fn files_of_the_rootfs(&self) -> Result<()> {
        let root = Root::open(&self.target.rootfs())?;
        if let Some(new) = self.spec.hostname() {
            root.rewrite(HOSTNAME, MOST, |_| Some(format!("{new}\n").into_bytes()))?;
            root.rewrite(HOSTS, MOST, |old| self.renamed(old))?;
        }
        let mut id = [0; ID];
        fork::fill_random(&mut id)?;
        let id = format!("{}\n", hex::encode(id)).into_bytes();
        let renew = |old: &[u8]| (!old.is_empty()).then(|| id.clone());
        root.rewrite(MACHINE_ID, MOST, renew)?;
        root.rewrite_if_no_link(DBUS_MACHINE_ID, MOST, renew)
    }

    /// A hosts file with the new name in place of the old one; `None` where it is not in it.
    fn renamed(&self, hosts: &[u8]) -> Option<Vec<u8>> {
        let (old, new) = (self.old_hostname?, self.spec.hostname().as_deref()?);
        with_name(hosts, old, new)
    }

    fn generation(&self, pid: i32) -> Result<()> {
        let mut seed = [0; SEED];
        fork::fill_random(&mut seed)?;
        let text = crate::json::to_bytes(&Generation {
            fork: &self.sibling.fork,
            index: self.sibling.index,
            parent: self.sibling.parent,
            seed: hex::encode(seed),
        })?;
        let root = Root::open(Path::new(&format!("/proc/{pid}/root")))?;
        let owner = root_of(self.spec);
        let written = as_user(owner, || root.put(&FOLDER, GENERATION, &text));
        match written {
            // A root that is mounted read-only for the processes only.
            Err(inside::Fault::ReadOnly) if root.is_on_root(FOLDER[0]) => {
                let rootfs = Root::open(&self.target.rootfs())?;
                rootfs.put(&FOLDER, GENERATION, &text).map_err(Error::from)
            }
            written => written.map_err(Error::from),
        }
    }

    /// Gives files that are bind-mounted from the host a source of their own in the bundle,
    /// so that whoever else has them keeps them as they are.
    pub fn own_sources(&self, spec: &mut Spec) -> Result<bool> {
        let Some(new) = spec.hostname().clone() else {
            return Ok(false);
        };
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        let mut changed = false;
        for mount in &mut mounts {
            let name = match mount.destination().to_str() {
                Some("/etc/hostname") => "hostname",
                Some("/etc/hosts") => "hosts",
                _ => continue,
            };
            let Some(source) = mount.source().clone() else {
                continue;
            };
            let own = self.target.state_root().join(name);
            let edit = |old: &[u8]| match name {
                "hostname" => Some(format!("{new}\n").into_bytes()),
                _ => self.renamed(old),
            };
            if copy(&source, &own, edit)? {
                mount.set_source(Some(own));
                changed = true;
            }
        }
        spec.set_mounts(Some(mounts));
        Ok(changed)
    }

    /// Tells the processes, which run.
    pub fn notify(&self, pid: i32) {
        let told = match &self.sibling.notify {
            None => Ok(()),
            Some(Notify::Signal(number)) => send(pid, *number),
            Some(Notify::Exec(words)) => self.run(pid, words),
        };
        if let Err(error) = told {
            tracing::warn!(
                "{} is not told that it is a sibling: {error}",
                self.target.id
            );
        }
    }

    fn run(&self, init: i32, words: &[String]) -> Result<()> {
        let mut process = self.spec.process().clone().unwrap_or_default();
        process.set_args(Some(words.to_vec()));
        process.set_terminal(Some(false));
        let path = self.target.state_root().join("notify.json");
        let bytes = crate::json::to_bytes(&process)?;
        std::fs::write(&path, bytes).context(|| format!("write {}", path.display()))?;
        // Its input is not the container's.
        let null = std::fs::File::open("/dev/null").context(|| "open /dev/null")?;
        rustix::stdio::dup2_stdin(&null).context(|| "give a program no input")?;
        let ran = runtime::exec(&Exec {
            target: self.target.clone(),
            init,
            process: path.clone(),
            console_socket: None,
        });
        let _ = std::fs::remove_file(&path);
        ran.map(drop)
    }
}

fn send(pid: i32, number: i32) -> Result<()> {
    let pid = rustix::process::Pid::from_raw(pid);
    let (Some(pid), Some(signal)) = (pid, crate::sys::signal(number)) else {
        return Err(Error::new(ErrorKind::Internal, "no process, or no signal"));
    };
    rustix::process::kill_process(pid, signal).context(|| format!("send signal {number}"))
}

/// Copies a file of the host's, changed; keeps its owner and mode. False where it is no file
/// to be changed.
fn copy(source: &Path, own: &PathBuf, edit: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let what = || format!("copy {}", source.display());
    let metadata = match std::fs::metadata(source) {
        // The restore will say so in its own words.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        metadata => metadata.context(what)?,
    };
    if !metadata.is_file() || metadata.len() > MOST {
        return Ok(false);
    }
    let old = std::fs::read(source).context(what)?;
    let new = edit(&old).unwrap_or(old);
    if let Some(parent) = own.parent() {
        std::fs::create_dir_all(parent).context(what)?;
    }
    std::fs::write(own, new).context(what)?;
    std::os::unix::fs::chown(own, Some(metadata.uid()), Some(metadata.gid())).context(what)?;
    std::fs::set_permissions(own, metadata.permissions()).context(what)?;
    Ok(true)
}

/// A hosts file with one name in place of another; `None` where it is not in it.
fn with_name(hosts: &[u8], old: &str, new: &str) -> Option<Vec<u8>> {
    if old.is_empty() || old == new {
        return None;
    }
    let text = String::from_utf8_lossy(hosts);
    let mut changed = false;
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (names, comment) = line.split_at(line.find('#').unwrap_or(line.len()));
        let mut rest = names;
        while !rest.is_empty() {
            let blank = rest
                .find(|c: char| !c.is_whitespace())
                .unwrap_or(rest.len());
            out.push_str(&rest[..blank]);
            rest = &rest[blank..];
            let word = rest.find(char::is_whitespace).unwrap_or(rest.len());
            let is_old = &rest[..word] == old;
            changed |= is_old;
            out.push_str(if is_old { new } else { &rest[..word] });
            rest = &rest[word..];
        }
        out.push_str(comment);
    }
    changed.then(|| out.into_bytes())
}

/// The host's ids of the container's root, where it has a user namespace.
fn root_of(spec: &Spec) -> Option<(u32, u32)> {
    let linux = spec.linux().as_ref()?;
    let zero = |maps: &Option<Vec<LinuxIdMapping>>| {
        let mut maps = maps.iter().flatten();
        maps.find(|map| map.container_id() == 0)
            .map(LinuxIdMapping::host_id)
    };
    zero(linux.uid_mappings()).zip(zero(linux.gid_mappings()))
}

/// Makes files as another user would: a user namespace's filesystem knows no others.
fn as_user<E: Send>(
    owner: Option<(u32, u32)>,
    action: impl FnOnce() -> Result<(), E> + Send,
) -> Result<(), E> {
    let Some((uid, gid)) = owner else {
        return action();
    };
    let mut result = None;
    let _ = on_own_thread(|| {
        nix::unistd::setfsgid(nix::unistd::Gid::from_raw(gid));
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(uid));
        result = Some(action());
        Ok(())
    });
    result.unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_old_name_is_replaced() {
        let hosts = b"127.0.0.1\tlocalhost old # old\n10.0.0.2 old.example older old\n";
        let new = with_name(hosts, "old", "new").unwrap();
        assert_eq!(
            String::from_utf8(new).unwrap(),
            "127.0.0.1\tlocalhost new # old\n10.0.0.2 old.example older new\n"
        );
        assert_eq!(with_name(hosts, "none", "new"), None);
        assert_eq!(with_name(hosts, "", "new"), None);
    }
}
