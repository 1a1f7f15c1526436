//! Kubernetes reaches the shim by a runtime handler in containerd's
//! configuration. `ctr` and `nerdctl` need none: hence only a warning.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::Value;

use super::Check;
use super::daemon::Home;

const RUNTIME: &str = "io.containerd.world.v1";
const DROP_IN: &str = "copy config/containerd-worldshim.toml to /etc/containerd/conf.d/, have \
    imports = [\"/etc/containerd/conf.d/*.toml\"] in containerd's config, and restart it \
    (needed for Kubernetes only)";

pub(super) fn check(home: &Home) -> Check {
    const NAME: &str = "cri-runtime";
    let files = with_imports(&home.config);
    for file in &files {
        if let Some(handler) = read(file).as_ref().and_then(handler_of) {
            return Check::ok(NAME, format!("handler {handler:?} in {}", file.display()));
        }
    }
    let found = if files.is_empty() {
        format!("{} does not exist", home.config.display())
    } else {
        format!("no handler of type {RUNTIME} in {}", home.config.display())
    };
    Check::warn(NAME, found, DROP_IN)
}

/// The configuration file and all that it imports, each once.
fn with_imports(config: &Path) -> BTreeSet<PathBuf> {
    let mut seen = BTreeSet::new();
    let mut todo = vec![config.to_owned()];
    while let Some(path) = todo.pop() {
        if !path.is_file() || !seen.insert(path.clone()) {
            continue;
        }
        let parsed = read(&path);
        let patterns = parsed
            .as_ref()
            .and_then(|value| value.get("imports")?.as_array());
        let above = path.parent().unwrap_or(Path::new("/"));
        for pattern in patterns.into_iter().flatten().filter_map(Value::as_str) {
            let pattern = above.join(pattern);
            let found = pattern.to_str().and_then(|text| glob::glob(text).ok());
            todo.extend(found.into_iter().flatten().flatten());
        }
    }
    seen
}

fn read(path: &Path) -> Option<Value> {
    let text = std::fs::read_to_string(path).ok()?;
    match text.parse::<toml::Table>() {
        Ok(table) => Some(Value::Table(table)),
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "not TOML");
            None
        }
    }
}

/// The CRI runtime handler of our type, under whatever name its plugin section has.
fn handler_of(config: &Value) -> Option<String> {
    config
        .get("plugins")?
        .as_table()?
        .values()
        .find_map(|plugin| {
            let runtimes = plugin.get("containerd")?.get("runtimes")?.as_table()?;
            runtimes.iter().find_map(|(name, runtime)| {
                (runtime.get("runtime_type")?.as_str()? == RUNTIME).then(|| name.clone())
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_drop_in_is_found_through_an_import() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.toml");
        std::fs::create_dir(dir.path().join("conf.d")).unwrap();
        std::fs::write(&config, "version = 3\nimports = [\"conf.d/*.toml\"]\n").unwrap();
        let home = |config: &Path| Home {
            running: false,
            root: PathBuf::new(),
            config: config.to_owned(),
            path: std::ffi::OsString::new(),
            bin: None,
        };
        assert_eq!(
            check(&home(&config)).status,
            crate::cli::doctor::Status::Warn
        );
        let drop_in = include_str!("../../../config/containerd-worldshim.toml");
        std::fs::write(dir.path().join("conf.d/x.toml"), drop_in).unwrap();
        let found = check(&home(&config));
        assert_eq!(found.status, crate::cli::doctor::Status::Ok);
        assert!(
            found.found.starts_with("handler \"world\""),
            "{}",
            found.found
        );
    }
}
