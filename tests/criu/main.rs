//! Real containers dumped and restored by our CRIU driver. Run in the lab.

mod container;
mod steps;

use std::process::Command;

use container::{Place, freeze, is_frozen, read_until};
use steps::{dump, restore};

const LOOP: &str = "i=0; while :; do i=$((i+1)); echo $i > /count; echo tick $i; sleep 0.02; done";

#[test]
fn a_loop_goes_on_in_two_clones_beside_the_original() {
    let (original, output) = Place::new(&["/bin/sh", "-c", LOOP]).start();
    read_until(&output, "tick 3\n");
    let dumped = dump(&original, &original.place.images());
    assert!(is_frozen(&original.place.freezer()));
    assert_eq!(dumped.processes[0].pid, 1);
    let at: u64 = original.read("/count").trim().parse().unwrap_or(0);

    let (first, first_output, _) = restore(
        &original,
        &dumped.parameters,
        Place::beside(&original.place),
    );
    let (second, second_output, _) = restore(
        &original,
        &dumped.parameters,
        Place::beside(&original.place),
    );
    freeze(&original.place.freezer(), false);
    for (clone, output) in [(&first, &first_output), (&second, &second_output)] {
        read_until(output, &format!("tick {}\n", at + 3));
        let name = clone.exec("hostname");
        assert_eq!(name.trim(), clone.place.spec["hostname"].as_str().unwrap());
    }
    original.wait_for_progress("/count");

    // The second generation: a checkpoint of a restored container.
    freeze(&first.place.freezer(), true);
    let again = dump(&first, &first.place.images());
    let at: u64 = first.read("/count").trim().parse().unwrap_or(0);
    let (third, third_output, _) = restore(&first, &again.parameters, Place::beside(&first.place));
    read_until(&third_output, &format!("tick {}\n", at + 3));
    assert!(third.is_alive() && second.is_alive());
}

#[test]
fn criu_answers_what_it_is() {
    container::require_lab();
    let criu = worldshim::criu::Criu::find(None).unwrap();
    let printed = container::run(Command::new("criu").arg("--version"));
    let version = criu.require_version().unwrap().to_string();
    assert!(printed.contains(&version), "{printed} {version}");
    criu.check().unwrap();
    criu.features().unwrap();
}
