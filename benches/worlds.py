#!/usr/bin/env python3
"""benches/worlds.py: what worlds of the store cost, in bytes and time. Runs in the lab:

    tests/lab/run benches/worlds.py [--rounds N] [--json FILE]

A python program holds 256 MiB of random bytes and has written 5,000 files of 64 MiB in all; between two
checkpoints it changes one page in a hundred and ten files. Podman does the same beside it, `ctr` makes its
kind of checkpoint, and the floor is a bare `criu` with `zstd -T0` or `tar`. Times in milliseconds, medians.
A measurement and no test: a missed target is said and is no failure; not being able to measure is.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
from containers import PYTHON, WORLD, Container, run, timed
from floor import Floor
from run import conditions, progress

PLACE = Path("/var/lib/bench-worlds")
STORE = PLACE / "store"
PROGRAM = """
import os, signal, time
os.makedirs('/data', exist_ok=True)
for i in range(5000):
    open(f'/data/{i}', 'wb').write(os.urandom(13421))
held = bytearray(os.urandom(256 << 20))
rounds = 0
def change(*_):
    global rounds
    rounds += 1
    for at in range(rounds, 65536, 100):
        held[at * 4096 + 7] ^= 255
    for i in range(10):
        open(f'/data/{i}', 'wb').write(os.urandom(13421))
    open('/changed', 'w').write(str(rounds))
signal.signal(signal.SIGUSR1, change)
open('/changed', 'w').write('0')
while True: time.sleep(0.01)
"""


def world(*argv):
    """The JSON of a verb, how long it took, and how much memory its process had at most in KiB."""
    begun = time.perf_counter()
    child = subprocess.Popen(["world", "--format", "json", *map(str, argv)], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, env={**os.environ, "WORLD_STORE": str(STORE)})
    said, complaint = child.stdout.read(), child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    took = (time.perf_counter() - begun) * 1000
    if status != 0:
        raise RuntimeError(f"world {' '.join(map(str, argv))}: {complaint.decode().strip()}")
    return json.loads(said), took, usage.ru_maxrss


def wait_for(holds, what, seconds=120):
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {seconds} s")
        time.sleep(0.05)


class Program:
    """The program in a container of ours, or of podman's."""

    def __init__(self, pid):
        self.pid = pid

    def changed(self):
        path = Path(f"/proc/{self.pid()}/root/changed")
        return int(path.read_text() or -1) if path.exists() else -1

    def change(self):
        before = self.changed()
        os.kill(self.pid(), 10)
        wait_for(lambda: self.changed() > before, "a change")


class Podman:
    """The same program under podman with runc, from the same files."""

    NAME = "bench"

    def __init__(self):
        os.environ["PODMAN_IGNORE_CGROUPSV1_WARNING"] = "1"
        folder = PLACE / "image"
        folder.mkdir()
        run("ctr", "image", "mount", PYTHON, folder)
        archive = PLACE / "image.tar"
        run("tar", "-C", folder, "-cf", archive, ".")
        run("ctr", "image", "unmount", folder)
        run("podman", "import", archive, "localhost/python")

    def start(self):
        run("podman", "--runtime", "runc", "run", "-d", "--network", "none", "--name", self.NAME,
            "localhost/python", "python3", "-c", PROGRAM)
        program = Program(lambda: int(run("podman", "inspect", "-f", "{{.State.Pid}}", self.NAME)))
        wait_for(lambda: program.changed() == 0, "podman's container")

    def checkpoint(self):
        archive = PLACE / "podman.tar.zst"
        took = timed("podman", "container", "checkpoint", "--leave-running", "--compress", "zstd",
                     "--export", archive, self.NAME)
        size = archive.stat().st_size
        archive.unlink()
        return took, size

    def stop(self):
        run("podman", "rm", "-f", "-t", "0", self.NAME)


class Registry:
    """A docker-registry on loopback, of this run."""

    PORT = 5117

    def __enter__(self):
        config = PLACE / "registry.yml"
        config.write_text(f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: "
                          f"{PLACE}/registry}}}}\nhttp: {{addr: 127.0.0.1:{self.PORT}}}\n")
        self.process = subprocess.Popen(["docker-registry", "serve", config], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        address = f"http://127.0.0.1:{self.PORT}/v2/"
        wait_for(lambda: subprocess.run(["curl", "-fsS", address], capture_output=True).returncode == 0,
                 "the registry")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def name(self, repository):
        return f"127.0.0.1:{self.PORT}/{repository}"


class Figures(dict):
    def add(self, what, value):
        self.setdefault(what, []).append(value)

    def __getitem__(self, what):
        return statistics.median(self.get(what))


def checkpoints(figures, container, program):
    """First and second checkpoint, with nothing in the store before."""
    shutil.rmtree(STORE, ignore_errors=True)
    os.sync()
    folder = PLACE / "rpc"
    container.checkpoint_rpc(folder)
    figures.add("frozen by the shim", json.loads((folder / "world.json").read_text())["times"]["frozenNs"] / 1e6)
    shutil.rmtree(folder)
    os.sync()
    first, took, memory = world("checkpoint", container.name, "bench:1")
    figures.add("first", took)
    figures.add("first bytes", first["new_bytes"])
    figures.add("peak memory", memory / 1024)
    figures.add("frozen", first["frozen_ns"] / 1e6)
    program.change()
    second, took, _ = world("checkpoint", container.name, "bench:2")
    figures.add("second", took)
    figures.add("second bytes", second["new_bytes"])
    image = "bench/world:1"
    figures.add("ctr c checkpoint", container.checkpoint(image))
    run("ctr", "image", "rm", "--sync", image)


def floors(figures, container):
    """Bare criu, and what has to be done with its files at the least."""
    folder = PLACE / "floor"
    folder.mkdir()
    container.checkpoint_rpc(folder / "world")
    floor, images = Floor(container, folder / "world"), folder / "images"
    images.mkdir()
    took = floor.dump(images)
    took += timed("sh", "-c", f"tar -C {images} -c . | zstd -q -T0 -1 -o {folder}/images.tar.zst")
    took += timed("sh", "-c", f"zstd -q -T0 -1 {folder}/world/rootfs.tar -o {folder}/rootfs.tar.zst")
    figures.add("criu + zstd", took)
    untar = folder / "untar"
    untar.mkdir()
    figures.add("criu + untar", floor.restore(images) + timed("tar", "-C", untar, "-xf", folder / "world/rootfs.tar"))
    shutil.rmtree(folder)


def restore(figures, number):
    clone = Container(WORLD, f"clone-{number}")
    figures.add("restore", world("restore", "bench:2", "--id", clone.name)[1])
    clone.remove()


def carry(figures, registry, number):
    """Both worlds to a registry and back, by us and by oras; each time to a new repository."""
    ours, theirs = registry.name(f"world-{number}"), registry.name(f"oras-{number}")
    first, took, _ = world("push", "bench:1", f"{ours}:1", "--plain-http")
    figures.add("push", took)
    second, _, _ = world("push", "bench:2", f"{ours}:2", "--plain-http")
    figures.add("pushed first", first["transferred_bytes"])
    figures.add("pushed second", second["transferred_bytes"])
    digest = world("inspect", "bench:1")[0]["digest"]
    figures.add("oras push", timed("oras", "cp", "--from-oci-layout", f"{STORE}@{digest}", "--to-plain-http", f"{theirs}:1"))
    other = PLACE / "other"
    shutil.rmtree(other, ignore_errors=True)
    figures.add("pull", timed("world", "pull", "--store", other, f"{ours}:1", "pulled:1", "--plain-http"))
    shutil.rmtree(other)
    figures.add("oras pull", timed("oras", "cp", "--from-plain-http", f"{ours}:1", "--to-oci-layout", f"{other}:1"))
    shutil.rmtree(other)


def strangers(figures, one, other):
    """Two containers of the same image, started apart."""
    shutil.rmtree(STORE, ignore_errors=True)
    first = world("checkpoint", one.name, "one:1")[0]
    second = world("checkpoint", other.name, "other:1", "--share-all")[0]
    figures.add("a stranger", second["new_bytes"] / first["new_bytes"])


def rows(f):
    """What, figure, what it is beside, the ratio's target."""
    return [
        ("second checkpoint, 1 % of pages and 10 files changed: new bytes", f["second bytes"], "first", f["first bytes"], 0.02),
        ("the same, pushed: bytes", f["pushed second"], "first", f["pushed first"], 0.02),
        ("frozen, ms", f["frozen"], "the shim's own", f["frozen by the shim"], 1.2),
        ("world checkpoint, first, ms", f["first"], "podman --export", f["podman"], 0.6),
        ("world checkpoint, second, ms", f["second"], "podman --export", f["podman"], None),
        ("world checkpoint, first, ms", f["first"], "ctr c checkpoint", f["ctr c checkpoint"], None),
        ("world checkpoint, first, ms", f["first"], "criu + zstd -T0", f["criu + zstd"], None),
        ("world restore, ms", f["restore"], "criu + untar", f["criu + untar"], 1.3),
        ("peak memory of the packer, MiB", f["peak memory"], "", 96, 1),
        ("rate of push over loopback: time", f["push"], "oras", f["oras push"], 1.25),
        ("rate of pull over loopback: time", f["pull"], "oras", f["oras pull"], 1.25),
    ]


def table(figures):
    lines = [("", "world", "beside", "", "ratio", "target", "")]
    for what, ours, beside, theirs, target in rows(figures):
        ratio = ours / theirs
        verdict = "" if target is None else "met" if ratio <= target else "MISSED"
        lines.append((what, f"{ours:,.0f}", f"{theirs:,.0f}", beside, f"{ratio:.3f}x",
                      "" if target is None else f"<= {target}x", verdict))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
    print(f"\ntwo containers of one image, started apart, with --share-all: the second's new bytes are "
          f"{figures['a stranger']:.0%} of the first's\npodman's archive: {figures['podman bytes']:,.0f} bytes; "
          f"the first world: {figures['first bytes']:,.0f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (default 5)")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent.parent / "target/bench/worlds.json")
    args = parser.parse_args()
    if os.environ.get("WORLDSHIM_LAB") != "1":
        sys.exit("this runs in the lab: tests/lab/run benches/worlds.py")
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir()
    before, figures, podman = conditions(), Figures(), Podman()
    container = Container(WORLD, "holder")
    container.run(PYTHON, "python3", "-c", PROGRAM)
    program = Program(container.pid)
    wait_for(lambda: program.changed() == 0, "the container")
    podman.start()
    with Registry() as registry:
        for number in range(args.rounds):
            progress(f"round {number + 1} of {args.rounds}")
            checkpoints(figures, container, program)
            took, size = podman.checkpoint()
            figures.add("podman", took)
            figures.add("podman bytes", size)
            floors(figures, container)
            restore(figures, number)
            carry(figures, registry, number)
    podman.stop()
    other = Container(WORLD, "other")
    other.run(PYTHON, "python3", "-c", PROGRAM)
    wait_for(lambda: Program(other.pid).changed() == 0, "the other container")
    strangers(figures, container, other)
    for one in (container, other):
        one.remove()
    progress("")
    print(f"medians of {args.rounds} rounds; kernel {before['kernel']}, {before['cpus']} CPUs, load "
          f"{before['load']:.1f} before and {os.getloadavg()[0]:.1f} after\n")
    table(figures)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps({"conditions": before, "samples": {what: figures.get(what) for what in figures}}, indent=1) + "\n")
    shutil.rmtree(PLACE, ignore_errors=True)


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, OSError, KeyError, subprocess.SubprocessError) as error:
        sys.exit(f"bench: could not measure: {error}")
