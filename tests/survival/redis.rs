//! redis-server with its append-only file.

use crate::common::container::Container;
use crate::common::ctr::within;
use crate::common::suite::{Case, Test, shared};

pub fn cases() -> Vec<Case> {
    vec![shared("redis_with_10000_keys", redis)]
}

const REDIS: &str = "docker.io/library/redis:latest";
const KEYS: u32 = 10_000;
const FILL: &str =
    "for i=1,10000 do redis.call('set', 'key:'..i, 'value:'..(i*i)) end return 'filled'";
const COUNT: &str = "local n=0; for i=1,10000 do if redis.call('get', 'key:'..i) == 'value:'..(i*i) \
                     then n=n+1 end end return n";

fn redis(test: &Test) {
    let server = [
        "redis-server",
        "--appendonly",
        "yes",
        "--appendfsync",
        "everysec",
        "--dir",
        "/data",
        "--save",
        "",
    ];
    let program = format!(
        "mkdir -p /data && exec {}",
        server.map(|word| format!("'{word}'")).join(" ")
    );
    let mut last = Container::run(test, "a", &[], REDIS, &["sh", "-c", &program]);
    let ask =
        |container: &Container, words: &[&str]| container.exec(&[&["redis-cli"], words].concat());
    within(20, "redis", || {
        crate::common::ctr::run(&[
            "task",
            "exec",
            "--exec-id",
            &format!("p{}", crate::common::container::unique()),
            &last.id,
            "redis-cli",
            "ping",
        ])
        .stdout
        .starts_with(b"PONG")
    });
    assert_eq!(ask(&last, &["eval", FILL, "0"]), "filled");
    for (name, extra) in [("b", 1), ("c", 2)] {
        let image = test.image(name);
        last.checkpoint(&image);
        // What comes after the instant is not part of it.
        ask(&last, &["set", "later", "x"]);
        last.remove();
        last = Container::restore(test, name, &image);
        assert_eq!(ask(&last, &["eval", COUNT, "0"]), KEYS.to_string());
        assert_eq!(ask(&last, &["dbsize"]), (KEYS + extra - 1).to_string());
        ask(&last, &["set", &format!("extra:{extra}"), "y"]);
    }
    ask(&last, &["bgrewriteaof"]);
    within(20, "the rewritten file", || {
        ask(&last, &["info", "persistence"]).contains("aof_rewrite_in_progress:0")
    });
    let manifest = "/data/appendonlydir/appendonly.aof.manifest";
    ask(&last, &["config", "set", "appendfsync", "always"]);
    let checked = last.exec(&["redis-check-aof", manifest]);
    assert!(
        checked.contains("All AOF files and manifest are valid"),
        "{checked}"
    );
    // And what a fresh server makes of it.
    ask(&last, &["debug", "loadaof"]);
    assert_eq!(ask(&last, &["eval", COUNT, "0"]), KEYS.to_string());
}
