//! No room for a world.

use std::path::Path;

use crate::common::container::Container;
use crate::common::rpc::Containerd;
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("no_space_for_the_images", images),
        shared("no_space_for_the_rootfs", rootfs),
    ]
}

/// A small tmpfs that goes with this value.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(path: &'a Path, size: &str) -> Small<'a> {
        std::fs::create_dir_all(path).expect("a mount point");
        let data = std::ffi::CString::new(size).expect("no zero byte");
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("small", path, "tmpfs", flags, data.as_c_str())
            .expect("mount a tmpfs");
        Small(path)
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

fn full(test: &Test, container: &Container, size: &str) {
    let path = test.path("small");
    let small = Small::mount(&path, size);
    for world in [path.join("world"), path.clone()] {
        let before = container.before();
        let error = Containerd::connect()
            .checkpoint_to(&container.id, &world)
            .expect_err("no room");
        let said = error.message();
        assert!(said.contains("room") || said.contains("No space"), "{said}");
        let left: Vec<_> = std::fs::read_dir(&path)
            .expect("the tmpfs")
            .flatten()
            .collect();
        assert!(left.is_empty(), "{left:?} after {said}");
        before.unharmed();
    }
    drop(small);
}

fn images(test: &Test) {
    full(test, &Container::counter(test, "a", &[]), "size=64k");
}

fn rootfs(test: &Test) {
    let container = Container::counter(test, "a", &[]);
    container.exec(&["dd", "if=/dev/urandom", "of=/big", "bs=1M", "count=16"]);
    full(test, &container, "size=8m");
}
