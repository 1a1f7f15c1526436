//! containerd: reachable, new enough, with a working overlay snapshotter.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use containerd_client::services::v1::Plugin;

use super::Check;
use super::host::version_of;
use crate::containerd::Containerd;
use crate::error::Result;

/// Older ones do not speak version 3 of the shim's Task service.
const OLDEST: (u32, u32) = (2, 0);
const DEFAULT_ROOT: &str = "/var/lib/containerd";
const DEFAULT_CONFIG: &str = "/etc/containerd/config.toml";

/// Where a containerd lives: asked of the running one, else what is usual.
pub(super) struct Home {
    /// True when a running containerd was asked.
    pub running: bool,
    /// Its data directory.
    pub root: PathBuf,
    /// Its configuration file, which may not exist.
    pub config: PathBuf,
    /// Its PATH, where it looks for shims.
    pub path: OsString,
    /// The directory of its own executable, where it looks next.
    pub bin: Option<PathBuf>,
}

impl Home {
    pub fn of(containerd: Option<&Containerd>) -> Home {
        let mut home = Home {
            running: false,
            root: PathBuf::from(DEFAULT_ROOT),
            config: PathBuf::from(DEFAULT_CONFIG),
            path: std::env::var_os("PATH").unwrap_or_default(),
            bin: None,
        };
        let Some(containerd) = containerd else {
            return home;
        };
        if let Some(root) = containerd.plugins().ok().as_deref().and_then(root_of) {
            home.root = root;
        }
        if let Some(pid) = containerd.pid() {
            home.learn_from_process(&Path::new("/proc").join(pid.to_string()));
        }
        home
    }

    fn learn_from_process(&mut self, proc: &Path) {
        let Ok(environ) = std::fs::read(proc.join("environ")) else {
            return;
        };
        self.running = true;
        let path = environ
            .split(|byte| *byte == 0)
            .find_map(|variable| variable.strip_prefix(b"PATH="));
        self.path = OsString::from_vec(path.unwrap_or_default().to_vec());
        self.bin = std::fs::read_link(proc.join("exe"))
            .ok()
            .and_then(|exe| exe.parent().map(Path::to_owned));
        let command_line = std::fs::read(proc.join("cmdline")).unwrap_or_default();
        if let Some(config) = config_argument(&command_line) {
            self.config = config;
        }
    }
}

/// The value of `--config X`, `--config=X`, `-c X` or `-c=X`.
fn config_argument(command_line: &[u8]) -> Option<PathBuf> {
    let words: Vec<_> = command_line.split(|byte| *byte == 0).collect();
    let value = words.iter().enumerate().find_map(|(index, word)| {
        let word = word.strip_prefix(b"-")?;
        let word = word.strip_prefix(b"-").unwrap_or(word);
        match word {
            b"c" | b"config" => words.get(index + 1).copied(),
            _ => word
                .strip_prefix(b"config=")
                .or_else(|| word.strip_prefix(b"c=")),
        }
    })?;
    Some(PathBuf::from(OsString::from_vec(value.to_vec())))
}

/// The snapshotter exports `<root>/io.containerd.snapshotter.v1.overlayfs`.
fn root_of(plugins: &[Plugin]) -> Option<PathBuf> {
    let export = overlay_snapshotter(plugins)?.exports.get("root")?;
    Path::new(export).parent().map(Path::to_owned)
}

fn overlay_snapshotter(plugins: &[Plugin]) -> Option<&Plugin> {
    plugins
        .iter()
        .find(|plugin| plugin.r#type == "io.containerd.snapshotter.v1" && plugin.id == "overlayfs")
}

pub(super) fn checks(containerd: &Result<Containerd>) -> Vec<Check> {
    let containerd = match containerd {
        Ok(containerd) => containerd,
        Err(error) => {
            return vec![Check::fail(
                "containerd",
                error.to_string(),
                "start containerd (`systemctl start containerd`), or name its socket with --address",
            )];
        }
    };
    vec![version(containerd), snapshotter(containerd)]
}

fn version(containerd: &Containerd) -> Check {
    let (major, minor) = OLDEST;
    let fix = format!("install containerd {major}.{minor} or newer");
    match containerd.version() {
        Err(error) => Check::fail("containerd", error.to_string(), fix),
        Ok(answer) => match version_of(&answer.version) {
            Some(version) if version < OLDEST => Check::fail("containerd", answer.version, fix),
            Some(_) => Check::ok("containerd", answer.version),
            None => Check::warn(
                "containerd",
                format!("a version of its own: {:?}", answer.version),
                format!("make sure it is {major}.{minor} or newer"),
            ),
        },
    }
}

fn snapshotter(containerd: &Containerd) -> Check {
    const NAME: &str = "overlayfs-snapshotter";
    const FIX: &str = "see `ctr plugins ls -d id==overlayfs`; containerd's root must be on a disk, not on an overlay";
    let plugins = match containerd.plugins() {
        Ok(plugins) => plugins,
        Err(error) => return Check::fail(NAME, error.to_string(), FIX),
    };
    match overlay_snapshotter(&plugins) {
        None => Check::fail(NAME, "containerd has none", FIX),
        Some(plugin) => match &plugin.init_err {
            None => Check::ok(NAME, "loaded"),
            Some(status) => Check::fail(NAME, status.message.clone(), FIX),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_argument_in_all_its_forms() {
        let config = |line: &[u8]| config_argument(line).map(|path| path.display().to_string());
        for line in [
            &b"/bin/containerd\0--config\0/x.toml\0"[..],
            b"/bin/containerd\0-c\0/x.toml\0",
            b"/bin/containerd\0--log-level\0debug\0--config=/x.toml\0",
            b"/bin/containerd\0-c=/x.toml\0",
        ] {
            assert_eq!(config(line).as_deref(), Some("/x.toml"));
        }
        assert_eq!(config(b"/bin/containerd\0"), None);
        assert_eq!(config(b""), None);
    }
}
