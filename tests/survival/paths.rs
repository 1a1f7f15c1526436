//! The ways to a checkpoint and back.

use crate::common::container::Container;
use crate::common::ctr::{self, within};
use crate::common::rpc::{Containerd, Streams};
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![
        shared(
            "image_restored_three_times_beside_the_original",
            three_times,
        ),
        shared("image_restored_under_the_same_name", same_name),
        shared("second_generation_twice", second_generation),
        shared("second_generation_beside_its_ancestors", ancestors),
        shared("image_path", image_path),
        shared("image_path_with_exit", image_path_with_exit),
        shared("task_checkpoint_into_the_content_store", task_checkpoint),
        shared("call_without_options", without_options),
    ]
}

fn three_times(test: &Test) {
    let (original, image) = (Container::counter(test, "a", &[]), test.image("a"));
    original.checkpoint(&image);
    let at = original.count();
    original.counts_past(at);
    let clones: Vec<Container> = ["b", "c", "d"]
        .map(|name| Container::restore(test, name, &image))
        .into();
    for clone in &clones {
        clone.goes_on_from(at);
        assert_eq!(clone.exec(&["echo", "in"]), "in");
    }
    let at = original.count();
    for clone in clones {
        clone.remove();
    }
    original.goes_on_from(at);
}

fn same_name(test: &Test) {
    let (original, image) = (Container::counter(test, "a", &[]), test.image("a"));
    original.checkpoint(&image);
    let at = original.count();
    original.remove();
    Container::restore(test, "a", &image).goes_on_from(at);
}

fn second_generation(test: &Test) {
    let mut last = Container::counter(test, "a", &[]);
    for (name, next) in [("g1", "b"), ("g2", "c"), ("g3", "d")] {
        let image = test.image(name);
        last.checkpoint(&image);
        let at = last.count();
        last.counts_past(at);
        last.remove();
        last = Container::restore(test, next, &image);
        last.goes_on_from(at);
    }
}

fn image_path(test: &Test) {
    let original = Container::counter(test, "a", &[]);
    let world = original.checkpoint_to(test, "world");
    let at = original.count();
    original.counts_past(at);
    let clone = Container::create(test, "b", &[], ctr::BUSYBOX, &["sh"]);
    let containerd = Containerd::connect();
    containerd
        .create(&clone.id, Some(&world), &Streams::default())
        .expect("create");
    assert_eq!(clone.status(), "CREATED");
    assert!(
        containerd.pids(&clone.id).expect("pids") > 0,
        "a task without processes is taken for dead"
    );
    containerd.start(&clone.id).expect("start");
    clone.goes_on_from(at);
    assert!(
        world.join("world.json").exists(),
        "a folder that is not containerd's own stays"
    );
}

fn image_path_with_exit(test: &Test) {
    let original = Container::counter(test, "a", &[]);
    let world = test.path("world");
    let at = original.count();
    ctr::ok(&[
        "task",
        "checkpoint",
        "--exit",
        "--image-path",
        world.to_str().unwrap(),
        &original.id,
    ]);
    within(10, "the end of the original", || {
        original.status() == "STOPPED"
    });
    ctr::ok(&["task", "rm", &original.id]);
    original.start(Some(&world), &Streams::default());
    original.goes_on_from(at);
}

fn task_checkpoint(test: &Test) {
    let original = Container::counter(test, "a", &[]);
    let before = original.before();
    let name = ctr::ok(&["task", "checkpoint", &original.id]);
    before.unharmed();
    assert!(name.contains("containerd.io/checkpoint"), "{name}");
    ctr::ok(&["image", "rm", name.trim()]);
}

fn without_options(test: &Test) {
    let original = Container::counter(test, "a", &[]);
    let before = original.before();
    Containerd::connect()
        .checkpoint(&original.id)
        .expect("checkpoint");
    before.unharmed();
}

fn ancestors(test: &Test) {
    let first = Container::counter(test, "a", &[]);
    first.checkpoint(&test.image("1"));
    let second = Container::restore(test, "b", &test.image("1"));
    second.counts_past(0);
    second.checkpoint(&test.image("2"));
    let at = second.count();
    let third = Container::restore(test, "c", &test.image("2"));
    third.goes_on_from(at);
    third.checkpoint(&test.image("3"));
    let fourth = Container::restore(test, "d", &test.image("3"));
    for container in [&first, &second, &third, &fourth] {
        container.counts_past(container.count());
        assert_eq!(container.cgroups(), [format!("/default/{}", container.id)]);
    }
}
