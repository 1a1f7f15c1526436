//! Who we are to a registry, from the files that `docker login`, `nerdctl login`
//! and `podman login` write.
//!
//! `$REGISTRY_AUTH_FILE` alone where it is set. Otherwise, the first that knows the
//! registry: `config.json` in `$DOCKER_CONFIG` or `~/.docker`, then
//! `containers/auth.json` in `$XDG_RUNTIME_DIR` and in `$XDG_CONFIG_HOME` or
//! `~/.config`. A file may name a program that has the password; it is run.

use std::env;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use docker_credential::{CredentialRetrievalError, DockerCredential};
use oci_client::secrets::RegistryAuth;

use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

/// Most bytes of such a file.
const MAX_FILE: u64 = 1 << 20;

/// What Docker's own registry is called in these files.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// What is known for a registry, given as its host with the port.
pub(super) fn find(registry: &str) -> Result<RegistryAuth> {
    find_in(
        &places(|name| env::var_os(name).map(PathBuf::from)),
        registry,
    )
}

fn find_in(files: &[PathBuf], registry: &str) -> Result<RegistryAuth> {
    for file in files {
        if let Some(found) = look(file, registry)? {
            tracing::debug!("credentials for {registry} from {}", file.display());
            return Ok(found);
        }
    }
    Ok(RegistryAuth::Anonymous)
}

/// The files that may be there, the first to be asked first.
fn places(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    if let Some(file) = variable("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    let home = |below: &str| variable("HOME").map(|home| home.join(below));
    let docker = variable("DOCKER_CONFIG").or_else(|| home(".docker"));
    let config = variable("XDG_CONFIG_HOME").or_else(|| home(".config"));
    let containers = [variable("XDG_RUNTIME_DIR"), config];
    let containers = containers.into_iter().flatten();
    let docker = docker.into_iter().map(|folder| folder.join("config.json"));
    docker
        .chain(containers.map(|folder| folder.join("containers/auth.json")))
        .collect()
}

fn look(file: &Path, registry: &str) -> Result<Option<RegistryAuth>> {
    let Some(bytes) = read(file)? else {
        return Ok(None);
    };
    let server = match registry {
        "docker.io" | "index.docker.io" => DOCKER_HUB,
        other => other,
    };
    let within = |why: String| {
        let text = format!("credentials for {registry} in {}: {why}", file.display());
        Error::new(ErrorKind::HostUnfit, text)
    };
    match docker_credential::get_credential_from_reader(bytes.as_slice(), server) {
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            Ok(Some(RegistryAuth::Basic(user, password)))
        }
        Ok(DockerCredential::IdentityToken(_)) => Err(within(
            "an identity token, which cannot be used: log in with a password or an access token"
                .to_owned(),
        )),
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(None),
        Err(CredentialRetrievalError::HelperFailure { stdout, .. })
            if stdout.contains("credentials not found") =>
        {
            Ok(None)
        }
        Err(CredentialRetrievalError::HelperFailure { helper, stderr, .. }) => {
            let said: String = stderr.split_whitespace().collect::<Vec<_>>().join(" ");
            let said: String = said.chars().filter(|c| !c.is_control()).take(200).collect();
            Err(within(format!("{helper} fails: {said}")))
        }
        Err(CredentialRetrievalError::ConfigReadError) => {
            Err(within("the file is damaged".to_owned()))
        }
        Err(error) => Err(within(error.to_string())),
    }
}

fn read(file: &Path) -> Result<Option<Vec<u8>>> {
    let what = || format!("read {}", file.display());
    let opened = match File::open(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.context(what)?,
    };
    let mut bytes = Vec::new();
    opened
        .take(MAX_FILE)
        .read_to_end(&mut bytes)
        .context(what)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    fn file(folder: &TempDir, name: &str, content: &str) -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, content).expect("write a file");
        path
    }

    fn basic(user: &str, password: &str) -> RegistryAuth {
        RegistryAuth::Basic(user.to_owned(), password.to_owned())
    }

    #[test]
    fn the_first_file_that_knows_the_registry_counts() {
        let folder = TempDir::new().expect("a folder");
        let auth = |text: &str| json!({ "auth": BASE64_STANDARD.encode(text) });
        let one = json!({"auths": {"h:5000": auth("a:b:c"), "https://i.test/v2/": auth("x:y")}});
        let two = json!({"auths": {"h:5000": auth("q:q"), "j.test": auth("s:t")}});
        let files = [
            folder.path().join("none.json"),
            file(&folder, "one.json", &one.to_string()),
            file(&folder, "two.json", &two.to_string()),
        ];
        let found = |registry| find_in(&files, registry).expect(registry);
        assert_eq!(found("h:5000"), basic("a", "b:c"));
        assert_eq!(found("i.test"), basic("x", "y"));
        assert_eq!(found("j.test"), basic("s", "t"));
        assert_eq!(found("k.test"), RegistryAuth::Anonymous);
    }

    #[test]
    fn a_damaged_file_is_told() {
        let folder = TempDir::new().expect("a folder");
        let files = [file(&folder, "config.json", "{\"auths\": ")];
        let error = find_in(&files, "h").expect_err("damaged");
        assert!(error.to_string().contains("config.json"), "{error}");
        let token = json!({"auths": {"h": {"identitytoken": "t"}}});
        let files = [file(&folder, "token.json", &token.to_string())];
        let error = find_in(&files, "h").expect_err("a token");
        assert!(error.to_string().contains("identity token"), "{error}");
    }

    #[test]
    fn the_order_of_the_files() {
        let some = |name: &str| match name {
            "HOME" => Some(PathBuf::from("/h")),
            "XDG_RUNTIME_DIR" => Some(PathBuf::from("/r")),
            _ => None,
        };
        let shown = |places: Vec<PathBuf>| -> Vec<String> {
            places.iter().map(|p| p.display().to_string()).collect()
        };
        assert_eq!(
            shown(places(some)),
            [
                "/h/.docker/config.json",
                "/r/containers/auth.json",
                "/h/.config/containers/auth.json"
            ]
        );
        let set = |name: &str| match name {
            "REGISTRY_AUTH_FILE" => Some(PathBuf::from("/f")),
            other => some(other),
        };
        assert_eq!(shown(places(set)), ["/f"]);
    }
}
