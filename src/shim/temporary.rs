//! containerd's temporary folders for worlds.
//!
//! For a checkpoint that is to go into the content store, containerd has us
//! write into `ctrd-checkpointN` in `$XDG_RUNTIME_DIR` or `/tmp`, and removes
//! that itself. For a restore it unpacks into such a folder and forgets it
//! (containerd#10166): that one is removed by us, as it was made for our task.

use std::path::Path;

const PREFIX: &str = "ctrd-checkpoint";

/// containerd made this folder, for one task: its name is the prefix and the
/// number that Go's `MkdirTemp` appends.
pub fn is_containerds_own(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let number = name.and_then(|name| name.strip_prefix(PREFIX));
    number.is_some_and(|number| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Removes a folder that containerd unpacked a world into.
pub fn remove(path: &Path) {
    if !is_containerds_own(path) {
        return;
    }
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            log::warn!("remove {}: {error}", path.display());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_go_s_temporary_names_are_containerds() {
        assert!(is_containerds_own(Path::new("/tmp/ctrd-checkpoint123")));
        assert!(!is_containerds_own(Path::new("/tmp/ctrd-checkpoint")));
        assert!(!is_containerds_own(Path::new("/tmp/ctrd-checkpoint1/..")));
        assert!(!is_containerds_own(Path::new("/tmp/my-ctrd-checkpoint1")));
        assert!(!is_containerds_own(Path::new("/x/ctrd-checkpoint-mine")));
    }
}
