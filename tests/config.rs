//! What is under `config/` is what containerd and Kubernetes can read.

use std::fs;
use std::path::{Path, PathBuf};

fn config_files(extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("config")];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).expect("list config") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn every_toml_file_parses() {
    let files = config_files("toml");
    assert!(!files.is_empty());
    for file in files {
        let text = fs::read_to_string(&file).expect("read a config file");
        if let Err(error) = text.parse::<toml::Table>() {
            panic!("{}: {error}", file.display());
        }
    }
}

#[test]
fn the_runtime_class_names_the_drop_ins_handler() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let drop_in = fs::read_to_string(config.join("containerd-worldshim.toml")).unwrap();
    let drop_in: toml::Table = drop_in.parse().unwrap();
    let runtime = &drop_in["plugins"]["io.containerd.cri.v1.runtime"]["containerd"]["runtimes"]["world"]
        ["runtime_type"];
    assert_eq!(runtime.as_str(), Some("io.containerd.world.v1"));
    let class = fs::read_to_string(config.join("runtimeclass.yaml")).unwrap();
    assert!(class.lines().any(|line| line == "handler: world"));
}
