//! `world.json`, `env.json` and `spec.json` from a hostile hand: as they are, and with a checksum
//! that fits, so that the fuzzer gets past it.

use worldshim::digest::Digest;
use worldshim::world::manifest::Manifest;
use worldshim::world::{checksum, env::EnvPart, spec};

pub fn run(bytes: &[u8]) {
    let _ = Manifest::parse(bytes);
    let _ = EnvPart::parse(bytes);
    let _ = spec::parse(bytes);
    if let Some(sealed) = sealed(bytes)
        && let Ok(manifest) = Manifest::parse(&sealed)
    {
        let written = manifest.to_bytes().expect("what was read can be written");
        let read = Manifest::parse(&written).expect("what was written can be read");
        assert_eq!(read.to_bytes().expect("and again"), written);
    }
}

fn sealed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    *value.get_mut("checksum")? = Digest::default().to_string().into();
    checksum::sealed(serde_json::to_vec(&value).ok()?).ok()
}
