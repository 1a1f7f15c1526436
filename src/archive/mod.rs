//! Worlds as single files: what `world export` writes and `world import` takes.
//!
//! | form | what it is |
//! |---|---|
//! | checkpoint | a tar as podman, CRI and checkpointctl know it: `config.dump`, `spec.dump`, `checkpoint/*.img`, `rootfs-diff.tar` ..., with `world.json` before all |
//! | oci | a tar of an OCI image layout with the world's own manifest and blobs |
//! | directory | a world directory as the shim writes it |
//! | containerd's | an image made by `ctr container checkpoint`, exported or in its store |
//!
//! [`export`] writes the first two, [`import`] tells all of them apart by what is in them.
//! Everything read is untrusted: names, counts and sizes are bounded, nothing but
//! regular files is taken, and nothing is published before all of it is there.

mod checkpoint;
mod containerd;
mod describe;
mod export;
mod extract;
mod import;
mod layout;
mod lineage;
mod output;
mod recognise;
mod source;
mod statistics;
mod tar_reader;

pub use export::{Compression, ExportRequest, Exported, Form, export};
pub use import::{ImportRequest, Imported, Origin, form_of, import};
