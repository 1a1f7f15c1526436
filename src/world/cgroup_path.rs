//! The cgroup path of a restored container.
//!
//! A client that makes the new container from the old one's spec (`ctr c
//! restore`) leaves the old one's cgroup path in it, where the original may
//! still live: the last step of such a path becomes the new container's id. A
//! path of the new spec's own stays as it is.
//!
//! The container's spec in containerd's store still has the first path, in
//! every generation. So the path that was replaced is kept as an annotation in
//! the bundle, and with that in the next world.

use std::path::Path;

use oci_spec::runtime::Spec;

use super::policy::{GIVEN_CGROUP, PREFIX};
use crate::runtime::{self, Target};

/// The spec of `target` with a cgroup path of its own, or `None` when it has
/// one already. `world` is the world's spec and `world_id` its container's id.
pub fn own(target: &Target, spec: &Spec, world: &Spec, world_id: &str) -> Option<Spec> {
    let given = runtime::cgroup_path(spec, &target.id);
    let path = given.with_file_name(&target.id);
    let same = target.id == world_id && given == runtime::cgroup_path(world, world_id);
    if same || given == path || !is_inherited(&given, world, world_id) {
        return None;
    }
    let mut spec = spec.clone();
    let mut annotations = spec.annotations().clone().unwrap_or_default();
    let text = given.to_string_lossy().into_owned();
    annotations.insert(format!("{PREFIX}{GIVEN_CGROUP}"), text);
    spec.set_annotations(Some(annotations));
    spec.linux_mut().as_mut()?.set_cgroups_path(Some(path));
    Some(spec)
}

/// Whether the path is that of the world's container or of one it descends from.
fn is_inherited(given: &Path, world: &Spec, world_id: &str) -> bool {
    let annotations = world.annotations().as_ref();
    let ancestor = annotations.and_then(|all| all.get(&format!("{PREFIX}{GIVEN_CGROUP}")));
    given.file_name() == Some(world_id.as_ref())
        || given == runtime::cgroup_path(world, world_id)
        || ancestor.is_some_and(|ancestor| *given == **ancestor)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn spec(path: &str) -> Spec {
        let text = serde_json::json!({ "ociVersion": "1.2.0", "linux": { "cgroupsPath": path } });
        serde_json::from_value(text).unwrap()
    }

    fn target(id: &str) -> Target {
        Target {
            id: id.to_owned(),
            bundle: "/nonexistent".into(),
        }
    }

    fn path(spec: &Spec) -> PathBuf {
        runtime::cgroup_path(spec, "none")
    }

    #[test]
    fn a_clone_of_a_clone_gets_its_own() {
        let first = spec("/default/a");
        let b = own(&target("b"), &first, &first, "a").unwrap();
        assert_eq!(path(&b), Path::new("/default/b"));
        // containerd still has the first spec.
        let c = own(&target("c"), &first, &b, "b").unwrap();
        assert_eq!(path(&c), Path::new("/default/c"));
        let d = own(&target("d"), &first, &c, "c").unwrap();
        assert_eq!(path(&d), Path::new("/default/d"));
        let again = own(&target("b"), &first, &b, "b").unwrap();
        assert_eq!(path(&again), Path::new("/default/b"));
    }

    #[test]
    fn the_same_name_and_a_new_path_stay() {
        let first = spec("/default/a");
        assert_eq!(own(&target("a"), &first, &first, "a"), None);
        assert_eq!(own(&target("a"), &spec("/mine"), &spec("/mine"), "a"), None);
        assert_eq!(own(&target("b"), &spec("/mine/b1"), &first, "a"), None);
        let named = own(&target("b"), &spec("/mine"), &spec("/mine"), "a").unwrap();
        assert_eq!(path(&named), Path::new("/b"));
    }
}
