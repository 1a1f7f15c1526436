#!/usr/bin/env python3
"""The demo, inside the lab: a container is frozen, killed, brought back, and brought back twice more.

Started by examples/demo/demo. Every command is shown as it is run; whatever is not as it is said to
be ends the demo with status 1.
"""
import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
WORLD, RUNC = "io.containerd.world.v1", "io.containerd.runc.v2"
IMAGE, SERVICE = "docker.io/library/python:latest", Path(__file__).with_name("counter.py")
GREETING = "hello from the first life"
STOOD_STILL = "stood still (ms)"
COLOURS = sys.stdout.isatty()


class Wrong(Exception):
    """Something is not as the demo says."""


# ---- telling ------------------------------------------------------------------------------------

def painted(code, text):
    return f"\033[{code}m{text}\033[0m" if COLOURS else text


def step(number, title):
    print("\n" + painted("1", f"{number}. {title}"))


def say(text):
    print(f"   {text}")


def show(argv):
    words = [word if "\n" not in word else '"$(cat examples/demo/counter.py)"' for word in map(str, argv)]
    words = [word if " " not in word or word.startswith('"') else f"'{word}'" for word in words]
    print("   " + painted("36", "$ " + " ".join(words)), flush=True)


def check(holds, what):
    if not holds:
        raise Wrong(what)
    say(painted("32", "ok") + f": {what}")


# ---- doing --------------------------------------------------------------------------------------

def run(*argv, shown=True):
    """Runs a command; its output and how long it took in milliseconds."""
    if shown:
        show(argv)
    begun = time.perf_counter()
    done = subprocess.run(list(map(str, argv)), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    took = (time.perf_counter() - begun) * 1000
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip() or f"status {done.returncode}"
        raise Wrong(f"{' '.join(map(str, argv[:4]))} failed: {said}")
    return done.stdout, took


def tasks():
    """Names and process ids of what runs."""
    lines = run("ctr", "task", "ls", shown=False)[0].splitlines()[1:]
    return {line.split()[0]: int(line.split()[1]) for line in lines}


def list_tasks():
    for line in run("ctr", "task", "ls")[0].splitlines():
        say(f"  {line.rstrip()}")


def curl(name, shown=True):
    """Asks the service in a container, from its own network namespace."""
    argv = ["nsenter", "-n", "-t", tasks()[name], "curl", "-sS", "--max-time", "10", "http://127.0.0.1:8000/"]
    answer = json.loads(run(*argv, shown=shown)[0])
    if shown:
        for key, value in answer.items():
            if key != STOOD_STILL:
                say(f"  {key}: {value}")
    return answer


def start(runtime, name, shown=True):
    _, took = run("ctr", "run", "-d", "--runtime", runtime, "--env", f"GREETING={GREETING}", IMAGE, name,
                  "python3", "-c", SERVICE.read_text(), shown=shown)
    deadline = time.monotonic() + 20
    while True:
        try:
            curl(name, shown=False)  # the first visit
            return took
        except Wrong:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def checkpoint(name, image, shown=True):
    """Total time, and how long the program itself says that it stood still."""
    curl(name, shown=False)
    _, total = run("ctr", "container", "checkpoint", "--rw", "--task", "--image", name, image, shown=shown)
    return total, curl(name, shown=False)[STOOD_STILL]


def restore(name, image, shown=True):
    return run("ctr", "container", "restore", "--rw", "--live", name, image, shown=shown)[1]


def remove(name, shown=True):
    run("ctr", "task", "kill", "-s", "SIGKILL", name, shown=shown)
    deadline = time.monotonic() + 10
    while "STOPPED" not in state_of(name):
        if time.monotonic() > deadline:
            raise Wrong(f"{name} did not end")
        time.sleep(0.02)
    # Its exit status is that of a killed program, which ctr passes on.
    if shown:
        show(["ctr", "task", "rm", name])
    subprocess.run(["ctr", "task", "rm", name], capture_output=True, check=False)
    run("ctr", "container", "rm", name, shown=shown)


def state_of(name):
    lines = run("ctr", "task", "ls", shown=False)[0].splitlines()
    return next((line for line in lines if line.split()[0] == name), "STOPPED")


# ---- our runtime, told --------------------------------------------------------------------------

def demo(times):
    step(1, "Start a service in a container, under our runtime")
    say("It counts its visitors, in memory and in a file, and holds 64 MiB of random bytes.")
    times["start"] = start(WORLD, "counter"), None
    list_tasks()

    step(2, "Visit it")
    first = curl("counter")
    check(first["count"] == 2, "the count goes up with each visit")

    step(3, "Checkpoint it, while it runs, into an image")
    say("(It is visited once more just before.)")
    total, frozen = checkpoint("counter", "demo/counter:1")
    times["checkpoint"] = total, frozen
    say(f"Done in {total:.0f} ms. The program stood still for {frozen} ms of that, by its own clock; then it ran on.")

    step(4, "Kill it and remove everything that it had")
    pid = tasks()["counter"]
    later = curl("counter", shown=False)["count"]
    say(f"(It had {later} visits by now; the checkpoint was made after visit 3.)")
    remove("counter")
    check("counter" not in tasks() and not Path(f"/proc/{pid}").exists(), "no task and no process is left")
    check(not Path("/run/containerd/io.containerd.runtime.v2.task/default/counter").exists(), "nor its folder")

    step(5, "Bring it back")
    took = restore("counter", "demo/counter:1")
    times["restore"] = took, None
    say(f"It runs again after {took:.0f} ms.")
    check_life("counter", first)

    step(6, "Bring it back twice more, beside the first")
    for name in ("counter-2", "counter-3"):
        took = restore(name, "demo/counter:1")
        times[f"restore as {name}, beside"] = took, None
        check_life(name, first)
    for _ in range(3):
        curl("counter-3", shown=False)
    counts = {name: curl(name, shown=False)["count"] for name in ("counter", "counter-2", "counter-3")}
    check(counts == {"counter": 5, "counter-2": 5, "counter-3": 8}, f"each counts on by itself from here: {counts}")
    list_tasks()
    for name in counts:
        remove(name, shown=False)
    check(not tasks(), "all three end and are removed like any other container")


def check_life(name, first):
    """A restored service is at the moment of the checkpoint, which came after visit 3."""
    for holds, what in life(curl(name), first):
        check(holds, what)


def life(answer, first):
    """What must be true of the first visit after a restore."""
    return [(answer["count"] == 4, "the count goes on: visit 4 follows visit 3"),
            (answer["visits in /var/visits"] == 4, "the file that it wrote is there, to the line"),
            (answer["memory"] == first["memory"], "its memory is the same, to the byte"),
            (answer["GREETING"] == GREETING, "so is its environment")]


# ---- the stock runtime, beside it ---------------------------------------------------------------

def stock(times):
    """The same steps with runc's shim. What fails is told and is no failure of the demo."""
    name, image, first = "stock", "demo/stock:1", {}

    def bring_back(as_name):
        took = restore(as_name, image, shown=False)
        try:
            answer = curl(as_name, shown=False)
        except Wrong as error:
            raise Wrong(f"runs after {took:.0f} ms and does not answer: curl{str(error).split('curl')[-1]}") from None
        wrong = [what for holds, what in life(answer, first) if not holds]
        if wrong:
            raise Wrong(f"runs after {took:.0f} ms, but it is not so that {wrong[0]}")
        return took, None

    def begin():
        took = start(RUNC, name, shown=False)
        first.update(curl(name, shown=False))
        return took, None

    def beside(as_name):
        took, _ = bring_back(as_name)
        pids = tasks()
        if cgroups_of(pids[as_name]) == cgroups_of(pids[name]):
            return f"{took:.0f} ms, but into the cgroup of the first"
        return took, None

    steps = [("start", begin),
             ("checkpoint", lambda: checkpoint(name, image, shown=False)),
             ("restore", lambda: (remove(name, shown=False), bring_back(name))[1]),
             ("restore as counter-2, beside", lambda: beside("stock-2")),
             ("restore as counter-3, beside", lambda: beside("stock-3"))]
    for what, action in steps:
        try:
            times[what] = action()
        except (Wrong, KeyError, ValueError) as error:
            times[what] = f"fails: {reason(str(error))}"
            if what in ("start", "checkpoint"):
                return


def cgroups_of(pid):
    return Path(f"/proc/{pid}/cgroup").read_text()


def reason(text):
    """The end of an error, where the cause stands, in a width that fits a table."""
    text = " ".join(text.split())
    return text if len(text) < 130 else "… " + text[-128:]


def cell(entry):
    if entry is None:
        return "-"
    if isinstance(entry, str):
        return entry
    total, frozen = entry
    return f"{total:.0f} ms" + ("" if frozen is None else f", of which frozen {frozen} ms")


def table(ours, theirs):
    lines = [("", "world", "stock runc shim")]
    lines += [(what, cell(ours[what]), cell(theirs.get(what))) for what in ours]
    widths = [max(len(line[column]) for line in lines) for column in range(2)]
    for what, world, runc in lines:
        print(f"   {what.ljust(widths[0])}   {world.ljust(widths[1])}   {runc}".rstrip())


def main():
    if os.environ.get("WORLDSHIM_LAB") != "1":
        sys.exit("this runs in the lab: examples/demo/demo")
    print("Worldshim freezes a running container into an image and brings it back: memory, files,")
    print("environment. First with containerd's own client, ctr; only the runtime is ours.")
    ours, theirs = {}, {}
    demo(ours)
    step(7, "The same with the stock runc shim, for comparison")
    say("(a moment, not shown)")
    stock(theirs)
    table(ours, theirs)
    import worlds  # It uses what is defined here.
    worlds.tell(8)
    print("\n" + painted("1", "What to try next"))
    say("tests/lab/run bash                 a shell in this lab: ctr, nerdctl, and the images busybox, python, redis")
    say("tests/lab/run world doctor         what a node needs, checked line by line")
    say("make bench                         exact figures, in turns with the stock shim")
    say("make install                       the shim and `world` on this node; README.md says how to go on")


if __name__ == "__main__":
    sys.modules["run"] = sys.modules["__main__"]
    try:
        main()
    except (Wrong, OSError, KeyError, ValueError) as error:
        print("\n" + painted("31", f"demo: {error}"), file=sys.stderr)
        sys.exit(1)
