//! The targets, which `fuzz/` has for libFuzzer too.

#[path = "../../fuzz/targets/archive.rs"]
mod archive;
#[path = "../../fuzz/targets/dumped.rs"]
mod dumped;
#[path = "../../fuzz/targets/manifest.rs"]
mod manifest;
#[path = "../../fuzz/targets/memory.rs"]
mod memory;
#[path = "../../fuzz/targets/rootfs_layers.rs"]
mod rootfs_layers;
#[path = "../../fuzz/targets/rootfs_tar.rs"]
mod rootfs_tar;
#[path = "../../fuzz/targets/store_documents.rs"]
mod store_documents;

#[test]
fn archive_holds() {
    crate::fuzz("archive", archive::run);
}

#[test]
fn dumped_holds() {
    crate::fuzz("dumped", dumped::run);
}

#[test]
fn manifest_holds() {
    crate::fuzz("manifest", manifest::run);
}

#[test]
fn memory_holds() {
    crate::fuzz("memory", memory::run);
}

#[test]
fn rootfs_layers_holds() {
    crate::fuzz("rootfs_layers", rootfs_layers::run);
}

#[test]
fn rootfs_tar_holds() {
    crate::fuzz("rootfs_tar", rootfs_tar::run);
}

#[test]
fn store_documents_holds() {
    crate::fuzz("store_documents", store_documents::run);
}
