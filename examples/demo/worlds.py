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
