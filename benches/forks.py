#!/usr/bin/env python3
"""benches/forks.py: how long until siblings of a world answer, and what memory they have. Runs in the lab:

    tests/lab/run benches/forks.py [--rounds N] [--json FILE]

A python program holds random bytes, answers over TCP, and touches pages when asked. A world of it is forked
(lazily), forked with all its memory (--eager) and restored; beside it, podman restores its own checkpoint,
bare criu restores the process, and `ctr run` starts the program anew. Each is timed until the first answer,
bare criu until it says that it is done. Times in milliseconds, medians. A measurement and no test: a missed
target is said and is no failure; not being able to measure is.
"""
import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True
from containers import PYTHON, WORLD, Container, run
from floor import Floor
from run import conditions, progress
from worlds import PLACE, world

PODMAN = ["podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs"]
PROGRAM = """
import os, random, socketserver, sys, time
pages = int(sys.argv[1]) << 8
held = bytearray(os.urandom(pages << 12))
class Answer(socketserver.StreamRequestHandler):
    def handle(self):
        percent = int(self.rfile.readline() or 0)
        begun = time.perf_counter()
        numbers = range(pages) if percent == 100 else random.sample(range(pages), pages * percent // 100)
        for number in numbers:
            held[number << 12] ^= 1
        self.wfile.write(b'%d' % ((time.perf_counter() - begun) * 1e6))
class Server(socketserver.TCPServer):
    allow_reuse_address = True
Server(('127.0.0.1', 8000), Answer).serve_forever()
"""


def ask(pid, percent=0, patience=20):
    """Has the program touch some of its pages, in its own network namespace; how long it took it, in ms."""
    answer = []

    def inside():
        with open(f"/proc/{pid}/ns/net") as network:
            os.setns(network.fileno(), os.CLONE_NEWNET)
        deadline = time.monotonic() + patience
        while not answer:
            try:
                with socket.create_connection(("127.0.0.1", 8000), timeout=patience) as connection:
                    connection.sendall(b"%d\n" % percent)
                    answer.append(int(connection.recv(100)) / 1000)
            except OSError:
                if time.monotonic() > deadline:
                    return
                time.sleep(0.002)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    if not answer:
        raise RuntimeError(f"process {pid} does not answer")
    return answer[0]


def own_memory(pid):
    """MiB of anonymous memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon:"))


class Original:
    """The program in a container, and its world; the container ends with the block."""

    def __init__(self, size):
        self.size, self.name = size, f"held-{size}"

    def __enter__(self):
        container = Container(WORLD, self.name)
        begun = time.perf_counter()
        container.run(PYTHON, "python3", "-c", PROGRAM, str(self.size))
        ask(container.pid())
        self.cold = (time.perf_counter() - begun) * 1000
        self.container, self.frozen = container, world("checkpoint", self.name, self.name)[0]["frozen_ns"] / 1e6
        return self

    def __exit__(self, *_):
        self.container.remove()

    def criu(self):
        """A bare restore of the process."""
        folder = PLACE / "floor"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self.container.checkpoint_rpc(folder / "world")
        floor, images = Floor(self.container, folder / "world"), folder / "images"
        shutil.rmtree(folder / "world")
        images.mkdir()
        floor.dump(images)
        took = [floor.restore(images) for _ in range(3)]
        shutil.rmtree(folder)
        return statistics.median(took)


class Fork:
    """Siblings that answer; they end with the block."""

    def __init__(self, source, count, *options):
        self.argv = ["fork", source, "-n", count, "--name-prefix", "sibling", *options]

    def __enter__(self):
        begun = time.perf_counter()
        self.report = world(*self.argv)[0]
        self.pids = [sibling["pid"] for sibling in self.report["siblings"]]
        for pid in self.pids:
            ask(pid)
        self.took = (time.perf_counter() - begun) * 1000
        return self

    def __exit__(self, *_):
        world("rm", "--forks-of", self.report["fork"])


def forks(name, rounds, *options):
    """The first, for which the page server is started, and the median of the others; and the phases."""
    took, phases = [], {}
    for _ in range(rounds + 1):
        with Fork(f"{name}:latest", 1, *options) as fork:
            took.append(fork.took)
            for phase in fork.report["phases"] + fork.report["siblings"][0]["phases"]:
                phases.setdefault(phase["name"], []).append(phase["ns"] / 1e6)
            command = fork.report["total_ns"] / 1e6
            phases.setdefault("answer, after the command", []).append(fork.took - command)
    return took[0], statistics.median(took[1:]), {what: statistics.median(times[1:]) for what, times in phases.items()}


def restores(name, rounds):
    took = []
    for _ in range(rounds):
        begun = time.perf_counter()
        report = world("restore", f"{name}:latest", "--id", "restored")[0]
        ask(report["pid"])
        took.append((time.perf_counter() - begun) * 1000)
        Container(WORLD, "restored").remove()
    return statistics.median(took)


def podman(size, rounds):
    """`podman container restore -i -n` in turn, until the answer."""
    os.environ["PODMAN_IGNORE_CGROUPSV1_WARNING"] = "1"
    folder, archive, checkpoint = PLACE / "image", PLACE / "image.tar", PLACE / "podman.tar"
    folder.mkdir(exist_ok=True)
    run("ctr", "image", "mount", PYTHON, folder)
    run("tar", "-C", folder, "-cf", archive, ".")
    run("ctr", "image", "unmount", folder)
    run(*PODMAN, "import", archive, "localhost/python")
    pid = lambda name: int(run(*PODMAN, "inspect", "-f", "{{.State.Pid}}", name))
    run(*PODMAN, "run", "-d", "--network", "none", "--name", "bench", "localhost/python", "python3", "-c", PROGRAM,
        str(size))
    ask(pid("bench"))
    run(*PODMAN, "container", "checkpoint", "--compress", "none", "--export", checkpoint, "bench")
    run(*PODMAN, "rm", "-f", "bench")
    took = []
    for number in range(rounds):
        begun = time.perf_counter()
        run(*PODMAN, "container", "restore", "-i", checkpoint, "-n", f"copy-{number}")
        # It comes back with its loopback interface down.
        run("nsenter", "-n", "-t", pid(f"copy-{number}"), "ip", "link", "set", "lo", "up")
        ask(pid(f"copy-{number}"))
        took.append((time.perf_counter() - begun) * 1000)
        run(*PODMAN, "rm", "-f", "-t", "0", f"copy-{number}")
    checkpoint.unlink()
    return statistics.median(took)


def available():
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable:"))


def curve(name, counts):
    """Per number of siblings: ms until all answer, MiB that the machine has less."""
    points = {}
    for count in counts:
        before = available()
        with Fork(f"{name}:latest", count) as fork:
            points[count] = fork.took, before - available()
    return points


def svg(path, by_size, by_count):
    """Two curves: time over memory for one sibling, time over how many siblings."""
    def panel(left, title, unit, points):
        most_x, most_y = max(x for x, _ in points), max(y for _, y in points)
        at = lambda x, y: (left + 50 + 250 * x / most_x, 230 - 180 * y / most_y)
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in points))
        yield f'<text x="{left + 50}" y="30" font-weight="bold">{title}</text>'
        yield f'<polyline points="{path}" fill="none" stroke="#0a6"/>'
        yield f'<path d="M{left + 50},50V230H{left + 300}" fill="none" stroke="#000"/>'
        for x, y in points:
            where = at(x, y)
            yield f'<circle cx="{where[0]:.1f}" cy="{where[1]:.1f}" r="3" fill="#0a6"/>'
            yield f'<text x="{where[0]:.1f}" y="{where[1] - 8:.1f}" text-anchor="middle">{y:.0f}</text>'
            yield f'<text x="{where[0]:.1f}" y="245" text-anchor="middle">{x}</text>'
        yield f'<text x="{left + 175}" y="262" text-anchor="middle">{unit}; ms until all answer</text>'

    lines = [*panel(0, "one sibling", "MiB of memory", by_size), *panel(330, "siblings of 64 MiB", "siblings", by_count)]
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="660" height="275" font-family="sans-serif" '
                    'font-size="10"><rect width="660" height="275" fill="#fff"/>' + "\n".join(lines) + "</svg>\n")


def table(lines):
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        print("  ".join(cell.ljust(width) if at == 0 else cell.rjust(width)
                        for at, (cell, width) in enumerate(zip(line, widths))).rstrip())


def verdict(what, figure, limit, unit):
    digits = 3 if unit == "x" else 1
    return [what, f"{figure:,.{digits}f} {unit}", f"<= {limit:,.{digits}f}", "met" if figure <= limit else "MISSED"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured (default 7)")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent.parent / "target/bench/forks.json")
    args = parser.parse_args()
    if os.environ.get("WORLDSHIM_LAB") != "1":
        sys.exit("this runs in the lab: tests/lab/run benches/forks.py")
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir()
    before, sizes, found = conditions(), (16, 256, 1024), {}
    for size in sizes:
        progress(f"{size} MiB")
        with Original(size) as original:
            found[size] = {"ctr run": original.cold, "bare criu": original.criu()}
            if size == 256:
                with Fork(original.name, 8, "--container") as fork:
                    frozen = fork.report["frozen_ns"] / 1e6, original.frozen
        first, later, phases = forks(original.name, args.rounds)
        found[size] |= {"fork, first": first, "fork": later, "phases": phases,
                        "fork --eager": forks(original.name, 2, "--eager")[1],
                        "world restore": restores(original.name, 2)}
    found[1024]["podman"] = podman(1024, 3)
    progress("memory")
    with Fork("held-256:latest", 1) as fork:
        ask(fork.pids[0], 2)
        touched = own_memory(fork.pids[0])
    with Fork("held-1024:latest", 1) as fork:
        lazy_walk = fork.took + ask(fork.pids[0], 100)
    with Fork("held-1024:latest", 1, "--eager") as fork:
        eager_walk = fork.took + ask(fork.pids[0], 100)
    progress("many siblings")
    for size in (512, 64):
        with Original(size):
            pass
    with Fork("held-512:latest", 16) as fork:
        sixteen = fork.took
    points = curve("held-64", (1, 2, 4, 8, 16, 32, 64))
    progress("")
    print(f"medians of {args.rounds} rounds until the first answer, ms; kernel {before['kernel']}, {before['cpus']} CPUs, "
          f"load {before['load']:.1f} before and {os.getloadavg()[0]:.1f} after\n")
    whats = ["fork", "fork, first", "fork --eager", "world restore", "podman", "bare criu", "ctr run"]
    table([["", *(f"{size} MiB" for size in sizes)],
           *([what, *(f"{found[size][what]:.0f}" if what in found[size] else "-" for size in sizes)] for what in whats)])
    print("\nwhere the time of a fork goes, ms")
    table([["", *(f"{size} MiB" for size in sizes)],
           *([what, *(f"{found[size]['phases'].get(what, 0):.1f}" for size in sizes)] for what in found[16]["phases"])])
    print("\nsiblings of 64 MiB: ms until all answer, MiB that the machine has less")
    table([["", *map(str, points)], ["ms", *(f"{took:.0f}" for took, _ in points.values())],
           ["MiB", *(f"{memory:.0f}" for _, memory in points.values())]])
    print()
    big = found[1024]["fork"]
    table([*(verdict(f"fork of {size} MiB to its first answer", found[size]["fork"], 80, "ms") for size in sizes),
           verdict("1 GiB against 16 MiB", big / found[16]["fork"], 1.3, "x"),
           verdict("1 GiB against podman's restore", big / found[1024]["podman"], 1 / 15, "x"),
           verdict("1 GiB against bare criu", big / found[1024]["bare criu"], 1 / 15, "x"),
           verdict("16 siblings of 512 MiB, all answering", sixteen, 1200, "ms"),
           verdict("memory of a sibling of 256 MiB that touches 2 %", touched, 1.5 * 0.02 * 256 + 6, "MiB"),
           verdict("fork of 1 GiB and a walk of all, against eager", lazy_walk / eager_walk, 2.5, "x"),
           verdict("frozen in a fork of 8, against one checkpoint", frozen[0] / frozen[1], 1.2, "x")])
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps({"conditions": before, "found": found, "curve": points}, indent=1) + "\n")
    plot = args.json.with_suffix(".svg")
    svg(plot, [(size, found[size]["fork"]) for size in sizes], [(count, took) for count, (took, _) in points.items()])
    print(f"\nall figures: {args.json}; curves: {plot}")
    shutil.rmtree(PLACE, ignore_errors=True)


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, OSError, KeyError, subprocess.SubprocessError) as error:
        sys.exit(f"bench: could not measure: {error}")
