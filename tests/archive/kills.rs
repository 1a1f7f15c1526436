//! The command killed at many moments: nothing half is anywhere, and it works the next time.

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use super::forms::{store, text};
use super::verbs::World;
use crate::common::container::Container;
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![shared("killed_at_many_moments", kills)]
}

/// Milliseconds until the command is killed.
const MOMENTS: [u64; 8] = [5, 15, 30, 60, 120, 200, 300, 500];

fn kills(test: &Test) {
    let world = World::new(test);
    let container = Container::big(test, "a", 16);
    let digest = world.checkpoint(&container.id, "x");
    container.remove();
    let folder = test.path("out");
    fs::create_dir(&folder).expect("a folder");
    let target = folder.join("file");
    for form in ["checkpoint", "oci"] {
        for moment in MOMENTS {
            killed(
                &world,
                moment,
                &["export", "x", text(&target), "--as", form],
            );
            for left in fs::read_dir(&folder).expect("list") {
                let left = left.expect("an entry").path();
                assert_eq!(left, target, "only a whole file has a name");
                let whole = store(test, &format!("{form}-{moment}"));
                let imported = whole.json(&["import", text(&left)]);
                assert_eq!(imported["digest"], digest.as_str());
                fs::remove_file(left).expect("remove");
            }
        }
        world.json(&["export", "x", text(&target), "--as", form]);
        let other = store(test, form);
        for moment in MOMENTS {
            killed(&other, moment, &["import", text(&target), "y"]);
            if !other.store.join("oci-layout").exists() {
                continue;
            }
            other.json(&["gc"]);
            other.sound();
            for found in other.json(&["ls"]).as_array().expect("worlds") {
                assert_eq!(found["digest"], digest.as_str());
                other.json(&["verify", "y"]);
                other.json(&["rm", "y"]);
            }
        }
        let imported = other.json(&["import", text(&target), "y"]);
        assert_eq!(imported["digest"], digest.as_str());
        other.sound();
        fs::remove_file(&target).expect("remove");
    }
    world.json(&["gc"]);
    world.sound();
}

fn killed(world: &World, moment: u64, arguments: &[&str]) {
    let mut command = Command::new("world")
        .args(arguments)
        .env("WORLD_STORE", &world.store)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("run world");
    sleep(Duration::from_millis(moment));
    // It may have ended by itself.
    let _ = command.kill();
    command.wait().expect("its end");
}
