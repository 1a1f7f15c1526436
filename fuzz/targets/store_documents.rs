//! Manifests and indexes from a hostile hand, and what people may call a world.

use worldshim::store::{Document, Reference, WorldName};

pub fn run(bytes: &[u8]) {
    let _ = Document::parse(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(name) = text.parse::<WorldName>() {
        let written = name.to_string();
        assert_eq!(written.parse::<WorldName>().expect("a name"), name);
    }
    if let Ok(reference) = text.parse::<Reference>() {
        let written = reference.to_string();
        assert_eq!(
            written.parse::<Reference>().expect("a reference"),
            reference
        );
    }
}
