//! What is refused, before anything has changed.

use super::verbs::World;
use crate::common::container::Container;
use crate::common::ctr::{self, BUSYBOX};
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared("a_container_of_another_runtime", other_runtime),
        shared("an_id_that_is_taken", taken),
        shared("power_over_the_host", power),
        shared("names_and_stores_that_make_no_sense", nonsense),
    ]
}

fn other_runtime(test: &Test) {
    let world = World::new(test);
    let id = test.id("r");
    let runtime = "io.containerd.runc.v2";
    ctr::ok(&[
        "container",
        "create",
        "--runtime",
        runtime,
        BUSYBOX,
        &id,
        "sleep",
        "1000",
    ]);
    let said = world.refused(5, &["checkpoint", &id, "x"]);
    assert!(said.contains("io.containerd.runc.v2"), "{said}");
    let said = world.refused(3, &["checkpoint", &test.id("none"), "x"]);
    assert!(said.contains(&test.id("none")), "{said}");
}

fn taken(test: &Test) {
    let world = World::new(test);
    let container = Container::counter(test, "a", &[]);
    world.checkpoint(&container.id, "x");
    let said = world.refused(4, &["restore", "x"]);
    assert!(said.contains("--id"), "{said}");
    container.counts_past(container.count());
}

fn power(test: &Test) {
    let world = World::new(test);
    let shown = test.path("shown");
    std::fs::create_dir(&shown).expect("a folder");
    let mount = format!(
        "type=bind,src={},dst=/shown,options=rbind:rw",
        shown.display()
    );
    let options = [
        "--mount",
        &mount,
        "--cap-add",
        "CAP_SYS_ADMIN",
        "--net-host",
    ];
    let container = Container::counter(test, "a", &options);
    world.checkpoint(&container.id, "x");
    let count = container.count();
    let id = test.id("b");
    let said = world.refused(7, &["restore", "x", "--id", &id]);
    for word in [
        shown.to_str().expect("UTF-8"),
        "CAP_SYS_ADMIN",
        "net namespace",
        "--trust",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(!ctr::ok(&["container", "ls", "-q"]).contains(&id));
    world.json(&["restore", "x", "--id", &id, "--trust"]);
    Container { id }.goes_on_from(count - 2);
}

fn nonsense(test: &Test) {
    let world = World::new(test);
    let said = world.refused(3, &["ls"]);
    assert!(said.contains("store"), "{said}");
    std::fs::create_dir(&world.store).expect("a folder");
    std::fs::write(world.store.join("mine"), "x").expect("a file");
    let container = Container::counter(test, "a", &[]);
    world.refused(2, &["checkpoint", &container.id, "x"]);
    let output = world.run(&["checkpoint", &container.id, "UPPER"]);
    assert_eq!(output.status.code(), Some(2));
    container.counts_past(container.count());
}
