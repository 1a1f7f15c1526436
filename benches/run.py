#!/usr/bin/env python3
"""benches/run.py: how long our shim takes beside the stock runc shim. Runs in the lab:

    tests/lab/run benches/run.py [--rounds N] [--only WORD] [--json FILE]

Both runtimes do the same in turns, the one that begins changing from round to round, so that what
else happens on the machine weighs on both alike; the figures are medians, the verdict is over their
ratio. "floor" is what a bare `criu` takes for the same process with the options of our shim. It is a
measurement and no test: a missed target is said and is no failure; not being able to measure is.
"""
import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
from containers import BUSYBOX, HOLDER, PYTHON, RUNC, SHIMS, TICKER, WORLD, Container, run
from floor import Floor

SHORT = {WORLD: "world", RUNC: "runc"}
SCRATCH = Path("/tmp/bench")


class Row:
    """One line of the table: what is measured, and what its median may be of the stock shim's."""

    def __init__(self, what, target, measure, prepare=lambda: None, unit="ms"):
        self.what, self.target, self.unit = what, target, unit
        self.prepare, self.measure = prepare, measure
        self.samples = {"runc": [], "world": [], "floor": []}

    def median(self, who):
        return statistics.median(self.samples[who]) if self.samples[who] else None

    def ratio(self):
        runc, world = self.median("runc"), self.median("world")
        return world / runc if runc and world else None

    def met(self):
        return self.ratio() is not None and self.ratio() <= self.target

    def line(self):
        def figure(who):
            if not self.samples[who]:
                return "-"
            low, high = min(self.samples[who]), max(self.samples[who])
            return f"{self.median(who):.0f} ({low:.0f}-{high:.0f})" if low != high else f"{low:.0f}"
        verdict = "met" if self.met() else "MISSED"
        return [f"{self.what}, {self.unit}", figure("runc"), figure("world"), f"{self.ratio():.2f}x",
                f"<= {self.target}x", verdict, figure("floor")]

    def as_json(self):
        return {"what": self.what, "unit": self.unit, "target": self.target, "ratio": round(self.ratio(), 3),
                "met": self.met(),
                "medians": {who: round(self.median(who), 2) for who in self.samples if self.samples[who]},
                "samples": {who: [round(s, 2) for s in self.samples[who]] for who in self.samples}}


class Bench:
    """The containers that live through all rounds, and what each row does with them."""

    def __init__(self):
        self.tickers = {runtime: Container(runtime, f"ticker-{SHORT[runtime]}") for runtime in (RUNC, WORLD)}
        self.holders = {runtime: Container(runtime, f"holder-{SHORT[runtime]}") for runtime in (RUNC, WORLD)}
        self.number = 0

    def start(self):
        for shim in SHIMS.values():
            unshare_pages(Path(shutil.which(shim)))
        for container in self.tickers.values():
            container.run(BUSYBOX, "sh", "-c", TICKER)
        time.sleep(1)

    def start_holders(self):
        """Not before the shims' memory is measured, which is that of one container each."""
        for container in self.holders.values():
            container.run(PYTHON, "python3", "-c", HOLDER)
        time.sleep(1)

    def stop(self):
        """All that `start` and the rows have started."""
        for name in run("ctr", "c", "ls", "-q").split():
            Container(WORLD, name).remove()

    def fresh(self, runtime):
        self.number += 1
        return Container(runtime, f"fresh-{self.number}")

    def folder(self):
        shutil.rmtree(SCRATCH, ignore_errors=True)
        SCRATCH.mkdir()
        return SCRATCH

    def start_one(self, runtime):
        container = self.fresh(runtime)
        took = container.run(BUSYBOX, "sleep", "1000")
        container.remove()
        return {SHORT[runtime]: took}

    def exec_one(self, runtime):
        return {SHORT[runtime]: self.tickers[runtime].exec_true()}

    def stand_still(self, runtime):
        container = self.tickers[runtime]
        since = time.time()
        container.checkpoint(f"bench/{container.name}:latest")
        return {SHORT[runtime]: container.stood_still(since, time.time())}

    def restore_one(self, runtime):
        """The original goes first: beside it, the stock shim cannot restore."""
        original, copy = self.fresh(runtime), self.fresh(runtime)
        image = f"bench/{original.name}:latest"
        original.run(BUSYBOX, "sh", "-c", TICKER)
        original.checkpoint(image)
        original.remove()
        took = copy.restore(image)
        copy.remove()
        run("ctr", "image", "rm", image)
        return {SHORT[runtime]: took}

    def rpc(self, containers, runtime):
        """The shim's Checkpoint call against `runc checkpoint`; with ours, the floor of the same process."""
        container, folder = containers[runtime], self.folder()
        if runtime == RUNC:
            return {"runc": container.runc_checkpoint(folder)}
        world, images = folder / "world", folder / "floor"
        took = container.checkpoint_rpc(world)
        floor = Floor(container, world)
        shutil.rmtree(world)
        images.mkdir()
        return {"world": took, "floor": floor.dump(images)}

    def floor_of_restore(self):
        container, folder = self.tickers[WORLD], self.folder()
        container.checkpoint_rpc(folder / "world")
        floor = Floor(container, folder / "world")
        images = folder / "floor"
        images.mkdir()
        floor.dump(images)
        return floor.restore(images)

    def restore_and_floor(self, runtime):
        took = self.restore_one(runtime)
        return took if runtime == RUNC else {**took, "floor": self.floor_of_restore()}

    def memory(self, runtime):
        return {SHORT[runtime]: self.tickers[runtime].shim_memory()}

    def threads(self, runtime):
        return {SHORT[runtime]: self.tickers[runtime].shim_threads()}

    def rows(self):
        return [
            Row("shim memory with one container (PSS)", 0.5, self.memory, unit="KiB"),
            Row("shim threads with one container", 0.5, self.threads, unit="threads"),
            Row("ctr run to running", 0.75, self.start_one),
            Row("ctr t exec true", 0.75, self.exec_one),
            Row("program stands still in ctr c checkpoint, busybox", 0.6, self.stand_still),
            Row("Checkpoint RPC / runc checkpoint, busybox", 0.4, lambda r: self.rpc(self.tickers, r)),
            Row("Checkpoint RPC / runc checkpoint, python 256 MiB", 0.8, lambda r: self.rpc(self.holders, r),
                prepare=self.start_holders),
            Row("ctr c restore --live, busybox", 0.6, self.restore_and_floor),
        ]


def unshare_pages(program):
    """Covers a program with a copy of its own: PSS divides pages among all who run the same file,
    and the same file is run in every other lab of this machine."""
    copy = Path("/var/tmp") / program.name
    shutil.copy(program, copy)
    run("mount", "--bind", copy, program)


def measure(row, rounds):
    """Rounds in turns; the first, which fills caches, does not count."""
    row.prepare()
    for number in range(rounds + 1):
        for runtime in (RUNC, WORLD) if number % 2 else (WORLD, RUNC):
            samples = row.measure(runtime)
            for who, sample in samples.items() if number else ():
                row.samples[who].append(sample)
        progress(f"{row.what}: {number} of {rounds}")


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def conditions():
    version = lambda *argv: run(*argv).splitlines()[0].split()[-1]
    return {"kernel": platform.release(), "cpus": os.cpu_count(), "load": os.getloadavg()[0],
            "containerd": run("containerd", "--version").split()[2], "criu": version("criu", "--version"),
            "runc": version("runc", "--version"),
            "world": run("containerd-shim-world-v1", "-v").split("\n")[1].split()[-1],
            "at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}


def table(rows):
    lines = [["", "runc", "world", "ratio", "target", "", "floor"], *(row.line() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        first, *rest = (cell.ljust(width) if at == 0 else cell.rjust(width)
                        for at, (cell, width) in enumerate(zip(line, widths)))
        print("  ".join([first, *rest]).rstrip())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10, help="how often each is measured (default 10)")
    parser.add_argument("--only", default="", help="only rows with this word")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent.parent / "target/bench/latest.json")
    args = parser.parse_args()
    if os.environ.get("WORLDSHIM_LAB") != "1":
        sys.exit("this runs in the lab: tests/lab/run benches/run.py")
    bench = Bench()
    rows = [row for row in bench.rows() if args.only in row.what]
    before = conditions()
    bench.start()
    for row in rows:
        measure(row, args.rounds)
    bench.stop()
    progress("")
    after = os.getloadavg()[0]
    print(f"medians (least-most) of {args.rounds} rounds; kernel {before['kernel']}, {before['cpus']} CPUs, "
          f"load {before['load']:.1f} before and {after:.1f} after,\ncontainerd {before['containerd']}, "
          f"criu {before['criu']}, runc {before['runc']}\n")
    table(rows)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    result = {"conditions": {**before, "load_after": after}, "rounds": args.rounds,
              "rows": [row.as_json() for row in rows]}
    args.json.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nall samples: {args.json}")


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"bench: could not measure: {error}")
