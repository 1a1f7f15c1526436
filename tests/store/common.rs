//! A store in a folder of its own, and small worlds to put into it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::json;
use tempfile::TempDir;
use worldshim::digest::Digest;
use worldshim::store::{Lease, Published, Reference, Store, WorldName};

pub const WORLD: &str = "application/vnd.worldshim.world.v1";

pub struct Home {
    pub folder: TempDir,
    pub store: Store,
}

impl Home {
    pub fn new() -> Home {
        let folder = TempDir::new().expect("a folder");
        let store = Store::open(&folder.path().join("store")).expect("a new store");
        Home { folder, store }
    }

    pub fn file(&self, path: &str) -> std::path::PathBuf {
        self.store.path().join(path)
    }

    pub fn blob(&self, digest: &Digest) -> std::path::PathBuf {
        self.file(&format!("blobs/sha256/{}", digest.hex()))
    }
}

/// A manifest whose config and layers have this content, all written.
pub fn manifest(lease: &Lease, layers: &[&str]) -> Vec<u8> {
    let mut described = Vec::new();
    for layer in layers {
        let written = lease.put(layer.as_bytes()).expect("write a layer");
        described.push(json!({
            "mediaType": "application/vnd.worldshim.world.pack.v1",
            "digest": written.digest.to_string(),
            "size": written.size,
        }));
    }
    let mut config = String::new();
    let _ = write!(config, "{{\"layers\":{}}}", layers.len());
    let config = lease.put(config.as_bytes()).expect("write a config");
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": WORLD,
        "config": {
            "mediaType": "application/vnd.worldshim.world.config.v1+json",
            "digest": config.digest.to_string(),
            "size": config.size,
        },
        "layers": described,
    });
    manifest.to_string().into_bytes()
}

pub fn publish(store: &Store, layers: &[&str], called: Option<&str>) -> Published {
    let lease = store.lease().expect("a lease");
    let manifest = manifest(&lease, layers);
    let annotations = BTreeMap::from([("org.criu.checkpoint.test".to_owned(), "1".to_owned())]);
    store
        .publish(&lease, &manifest, &annotations, called.map(name).as_ref())
        .expect("publish")
}

pub fn name(text: &str) -> WorldName {
    text.parse().expect("a name")
}

pub fn reference(text: &str) -> Reference {
    text.parse().expect("a reference")
}
