"""The second half of the demo: worlds in a store, with `world`."""
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import run as demo
from run import Wrong, check, curl, remove, run, say, show, step, tasks

PORT = 5000
SIBLINGS = 8
CONFIG = f"""version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: /tmp/demo-registry}}}}
http: {{addr: 127.0.0.1:{PORT}}}
"""


def world(*argv, shown=True):
    """A verb's JSON; shown as a person would type it."""
    if shown:
        show(["world", *argv])
    done = subprocess.run(["world", "--format", "json", *argv], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True)
    if done.returncode != 0:
        raise Wrong(f"world {' '.join(argv)} failed: {done.stderr.strip()}")
    return json.loads(done.stdout)


def mib(size):
    return f"{size / (1 << 20):.2f} MiB"


def told(report):
    say(f"  {mib(report['bytes'])}, {mib(report['new_bytes'])} of it new; frozen {report['frozen_ns'] / 1e6:.0f} ms "
        f"of {report['total_ns'] / 1e6:.0f} ms")


class Registry:
    """A registry on loopback, inside the lab."""

    def __enter__(self):
        config = Path("/tmp/demo-registry.yml")
        config.write_text(CONFIG)
        self.process = subprocess.Popen(["docker-registry", "serve", config], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while subprocess.run(["curl", "-fsS", f"http://127.0.0.1:{PORT}/v2/"], capture_output=True).returncode:
            if time.monotonic() > deadline:
                raise Wrong("the registry does not answer")
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        shutil.rmtree("/tmp/demo-registry", ignore_errors=True)


def tell(number):
    os.environ["WORLD_STORE"] = "/var/lib/demo-store"
    shutil.rmtree(os.environ["WORLD_STORE"], ignore_errors=True)
    demo.start(demo.WORLD, "counter", shown=False)

    step(number, "The same with `world`, into a store")
    say("(The service was started anew, and visited once.)")
    first = world("checkpoint", "counter", "counter:1")
    told(first)

    step(number + 1, "Visit it twice, and make a second world")
    for _ in range(2):
        seen = curl("counter", shown=False)
    second = world("checkpoint", "counter", "counter:2")
    told(second)
    check(second["new_bytes"] < first["new_bytes"] / 20, "the second costs only what has changed")
    for line in run("world", "ls", "--tree")[0].splitlines():
        say("  " + line)

    step(number + 2, "What is different?")
    for line in run("world", "diff", "counter:1", "counter:2")[0].splitlines()[:16]:
        say("  " + line)

    step(number + 3, "Carry it through a registry to another store, and bring it back from there")
    reference = f"127.0.0.1:{PORT}/demo/counter:2"
    with Registry():
        world("push", "counter:2", reference, "--plain-http")
        remove("counter", shown=False)
        os.environ["WORLD_STORE"] = "/var/lib/demo-other-store"
        shutil.rmtree(os.environ["WORLD_STORE"], ignore_errors=True)
        pulled = world("pull", reference, "counter:2", "--plain-http")
    check(pulled["digest"] == second["digest"], "the digest is the same in both stores")
    world("restore", "counter:2")
    answer = curl("counter")
    check(answer["count"] == seen["count"] + 1, "the count goes on")
    check(answer["memory"] == seen["memory"], "its memory is the same, to the byte")
    remove("counter", shown=False)
    check("counter" not in tasks(), "and it ends like any other container")
    fork(number + 4, seen["count"])


def fork(number, seen):
    step(number, "Eight of it at once")
    report = world("fork", "counter:2", "-n", str(SIBLINGS), "--name-prefix", "sibling")
    say(f"  {SIBLINGS} run after {report['total_ns'] / 1e6:.0f} ms; their memory comes when they touch it")
    names = [sibling["id"] for sibling in report["siblings"]]
    pids = tasks()
    # Of the first life's 64 MiB, each has what it touched.
    own = {name: resident(pids[name]) for name in names}
    say(f"  memory of its own, each: {mib(min(own.values()))} to {mib(max(own.values()))}")
    answers = {name: curl(name, shown=False) for name in names}
    check({answer["count"] for answer in answers.values()} == {seen + 1},
          f"each counts on from {seen}, the number that all of them remember")
    check(len({answer["memory"] for answer in answers.values()}) == 1, "with the same memory, to the byte")
    lives = {name: generation(name) for name in names}
    for name in names[:3]:
        say(f"  {name}: {lives[name]['hostname']}, seed {lives[name]['seed'][:16]}...")
    check(len({life["seed"] for life in lives.values()}) == SIBLINGS, "each was given a seed that no other has")
    check(len({life["hostname"] for life in lives.values()}) == SIBLINGS, "and a name of its own")
    removed = world("rm", "--forks-of", report["fork"])
    check(len(removed["removed"]) == SIBLINGS and not set(names) & set(tasks()), "and they go together")


def resident(pid):
    """Bytes of anonymous memory that a process has."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon:"))


def generation(name):
    """What a sibling can read about itself, by a program inside."""
    text, _ = run("ctr", "task", "exec", "--exec-id", "look", name, "cat", "/run/worldshim/generation", shown=False)
    hostname, _ = run("ctr", "task", "exec", "--exec-id", "look", name, "hostname", shown=False)
    return {**json.loads(text), "hostname": hostname.strip()}
