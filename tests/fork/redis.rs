//! redis-server with 100,000 keys.

use super::siblings::Fork;
use super::verbs::World;
use crate::common::container::{Container, unique};
use crate::common::ctr::{self, within};
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![shared("redis_with_100000_keys", redis)]
}

const REDIS: &str = "docker.io/library/redis:latest";
const FILL: &str =
    "for i=1,100000 do redis.call('set', 'key:'..i, 'value:'..(i*i)) end return 'filled'";
const COUNT: &str = "local n=0; for i=1,100000 do if redis.call('get', 'key:'..i) == 'value:'..(i*i) \
                     then n=n+1 end end return n";

fn redis(test: &Test) {
    let world = World::new(test);
    let program = "mkdir -p /data && exec redis-server --appendonly yes --appendfsync everysec \
                   --dir /data --save ''";
    let source = Container::run(test, "a", &[], REDIS, &["sh", "-c", program]);
    let ask =
        |container: &Container, words: &[&str]| container.exec(&[&["redis-cli"], words].concat());
    within(20, "redis", || {
        let id = format!("p{}", unique());
        let words = [
            "task",
            "exec",
            "--exec-id",
            &id,
            &source.id,
            "redis-cli",
            "ping",
        ];
        ctr::run(&words).stdout.starts_with(b"PONG")
    });
    assert_eq!(ask(&source, &["eval", FILL, "0"]), "filled");
    let fork = Fork::of(test, &world, &source.id, "s", &["-n", "3"]);
    for (index, sibling) in fork.siblings.iter().enumerate() {
        assert_eq!(ask(sibling, &["eval", COUNT, "0"]), "100000");
        ask(sibling, &["set", "mine", &index.to_string()]);
    }
    assert_eq!(ask(&source, &["exists", "mine"]), "0");
    for (index, sibling) in fork.siblings.iter().enumerate() {
        assert_eq!(ask(sibling, &["get", "mine"]), index.to_string());
        // Its append-only file went on where it was, and holds all of it.
        ask(sibling, &["debug", "loadaof"]);
        assert_eq!(ask(sibling, &["eval", COUNT, "0"]), "100000");
        assert_eq!(ask(sibling, &["get", "mine"]), index.to_string());
    }
}
