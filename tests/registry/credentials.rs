//! Registries that want to know who we are.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::roundtrip::HTTP;
use super::server::{PASSWORD, Registry, USER, small};
use super::verbs::World;
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("credentials_are_where_docker_has_them", credentials),
        shared("only_known_certificates_are_trusted", certificates),
    ]
}

/// `world push x` with one more variable.
fn push(world: &World, place: &str, variable: (&str, &Path)) -> Output {
    Command::new("world")
        .args(["push", "x", place, HTTP])
        .env("WORLD_STORE", &world.store)
        .env("HOME", "/nonexistent")
        // Not for what is on this host.
        .env("HTTP_PROXY", "http://127.0.0.1:9")
        .env(variable.0, variable.1)
        .output()
        .expect("run world")
}

/// A folder with docker's file in it.
fn folder(test: &Test, name: &str, config: &Value) -> PathBuf {
    let folder = test.path(name);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("config.json"), config.to_string()).expect("write it");
    folder
}

#[track_caller]
fn refused(output: &Output, words: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(8), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(words), "{said}");
    assert!(!said.contains(PASSWORD), "{said}");
}

#[track_caller]
fn accepted(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

fn credentials(test: &Test) {
    let (registry, world) = (Registry::with_password(test), World::new(test));
    let container = small(test, "a");
    world.checkpoint(&container.id, "x");
    let place = registry.at("x:1");
    let auths = |password: &str| {
        let auth = BASE64_STANDARD.encode(format!("{USER}:{password}"));
        json!({"auths": {&registry.address: {"auth": auth}}})
    };
    let none = folder(test, "none", &json!({}));
    refused(
        &push(&world, &place, ("DOCKER_CONFIG", &none)),
        "docker login",
    );
    let wrong = folder(test, "wrong", &auths("other"));
    refused(
        &push(&world, &place, ("DOCKER_CONFIG", &wrong)),
        "docker login",
    );
    let right = folder(test, "right", &auths(PASSWORD));
    accepted(&push(&world, &place, ("DOCKER_CONFIG", &right)));
    let file = right.join("config.json");
    accepted(&push(&world, &place, ("REGISTRY_AUTH_FILE", &file)));

    // A program that keeps the password.
    let program = test.path("docker-credential-lab");
    let script = format!(
        "#!/bin/sh\nread -r server\n[ \"$1 $server\" = 'get {}' ] || exit 1\n\
         echo '{{\"ServerURL\":\"\",\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'\n",
        registry.address
    );
    fs::write(&program, script).expect("write a program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("make it one");
    for (name, config) in [
        (
            "store",
            json!({"credsStore": "lab", "auths": {&registry.address: {}}}),
        ),
        (
            "helpers",
            json!({"credHelpers": {&registry.address: "lab"}}),
        ),
    ] {
        let folder = folder(test, name, &config);
        refused(
            &push(&world, &place, ("DOCKER_CONFIG", &folder)),
            "config.json",
        );
        let path = format!(
            "{}:{}",
            test.dir.display(),
            std::env::var("PATH").expect("a PATH")
        );
        let output = Command::new("world")
            .args(["pull", &place, HTTP])
            .env("WORLD_STORE", test.path(name).join("pulled"))
            .env("DOCKER_CONFIG", &folder)
            .env("PATH", path)
            .output()
            .expect("run world");
        accepted(&output);
    }
}

fn certificates(test: &Test) {
    let (registry, world) = (Registry::with_tls(test), World::new(test));
    let container = small(test, "a");
    let digest = world.checkpoint(&container.id, "x");
    let place = registry.at("x:1");
    let said = world.refused(15, &["push", "x", &place]);
    assert!(said.contains("certificate"), "{said}");
    let said = world.refused(15, &["push", "x", &place, HTTP]);
    assert!(said.contains(&registry.address), "{said}");
    let folder = Path::new("/etc/docker/certs.d").join(&registry.address);
    fs::create_dir_all(&folder).expect("a folder");
    fs::copy(test.path("ca.pem"), folder.join("ca.crt")).expect("copy the certificate");
    world.json(&["push", "x", &place]);
    let pulled = world.json(&["pull", &place, "y"]);
    assert_eq!(pulled["digest"], digest.as_str());
    fs::remove_dir_all(&folder).expect("remove the certificate");
    world.refused(15, &["pull", &place, "z"]);
}
