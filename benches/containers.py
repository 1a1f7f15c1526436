"""Containers of the lab under one runtime or the other, and what can be measured on them."""
import subprocess
import time
from pathlib import Path

import ttrpc

WORLD, RUNC = "io.containerd.world.v1", "io.containerd.runc.v2"
BUSYBOX, PYTHON = "docker.io/library/busybox:latest", "docker.io/library/python:latest"
SHIMS = {WORLD: "containerd-shim-world-v1", RUNC: "containerd-shim-runc-v2"}

# A loop that looks at the clock every millisecond and writes down when it was late by three more:
# a line of two instants in microseconds, between which the program stood still. No child processes.
TICKER = """
mkfifo /tmp/tick; exec 3<>/tmp/tick 4>>/tmp/gaps
last=${EPOCHREALTIME/./}
while :; do
    read -t 0.001 nothing <&3
    now=${EPOCHREALTIME/./}
    [ $((now - last)) -gt 4000 ] && echo "$last $now" >&4
    last=$now
done
"""
# 256 MiB that are really there: every page written.
HOLDER = "import time\nheld = bytearray(b'x') * (256 << 20)\nwhile True: time.sleep(0.01)"


def run(*argv, **kwargs):
    """Runs a command to its end, with its output captured; raises what it said if it fails."""
    done = subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, **kwargs)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, argv[:6]))}: {done.stdout.strip()[-2000:]}")
    return done.stdout


def timed(*argv):
    """How long a command takes, in milliseconds."""
    begun = time.perf_counter()
    run(*argv)
    return (time.perf_counter() - begun) * 1000


class Container:
    """One container and its task."""

    def __init__(self, runtime, name):
        self.runtime, self.name = runtime, name

    def run(self, image, *argv):
        """Starts it; milliseconds until its program runs."""
        return timed("ctr", "run", "-d", "--runtime", self.runtime, image, self.name, *argv)

    def restore(self, image):
        """Brings it back from a checkpoint image; milliseconds until it runs."""
        return timed("ctr", "c", "restore", "--rw", "--live", self.name, image)

    def checkpoint(self, image):
        """Milliseconds for a checkpoint through containerd; the image is made anew."""
        subprocess.run(["ctr", "image", "rm", image], capture_output=True, check=False)
        return timed("ctr", "c", "checkpoint", "--rw", "--task", "--image", self.name, image)

    def exec_true(self):
        """Milliseconds for a `true` inside it."""
        return timed("ctr", "t", "exec", "--exec-id", "bench", self.name, "true")

    def remove(self):
        """Ends it and removes all of it."""
        subprocess.run(["ctr", "t", "rm", "-f", self.name], capture_output=True, check=False)
        run("ctr", "c", "rm", self.name)

    def pid(self):
        """Process id of its init."""
        for line in run("ctr", "t", "ls").splitlines():
            if line.split()[0] == self.name:
                return int(line.split()[1])
        raise RuntimeError(f"{self.name} has no task")

    def shim(self):
        """Process id of its shim."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                argv = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if argv[0].endswith(SHIMS[self.runtime]) and self.name in argv:
                return int(folder.name)
        raise RuntimeError(f"{self.name} has no shim")

    def shim_memory(self):
        """KiB of memory that the shim has, shared pages in proportion (PSS)."""
        for line in Path(f"/proc/{self.shim()}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
        raise RuntimeError("no Pss")

    def shim_threads(self):
        """How many threads the shim has."""
        return len(list(Path(f"/proc/{self.shim()}/task").iterdir()))

    def stood_still(self, since, until):
        """Milliseconds of the longest standstill of a TICKER that touches the time between."""
        time.sleep(0.05)
        gaps = Path(f"/proc/{self.pid()}/root/tmp/gaps").read_text().splitlines()
        gaps = [tuple(int(instant) / 1e6 for instant in gap.split()) for gap in gaps]
        inside = [end - begin for begin, end in gaps if end > since and begin < until]
        if not inside:
            raise RuntimeError(f"{self.name} did not stand still during its checkpoint")
        return max(inside) * 1000

    def checkpoint_rpc(self, folder):
        """Milliseconds of one Checkpoint call of the shim, straight at its socket."""
        service = ttrpc.TaskService(self.name)
        begun = time.perf_counter()
        service.call("Checkpoint", {1: self.name, 2: str(folder)})
        return (time.perf_counter() - begun) * 1000

    def runc_checkpoint(self, folder):
        """Milliseconds of `runc checkpoint` on a container of the stock shim."""
        return timed("runc", "--root", "/run/containerd/runc/default", "checkpoint", "--leave-running",
                     "--image-path", folder / "images", "--work-path", folder / "work", self.name)

    def freezer(self):
        """The directory of its freezer cgroup."""
        for line in Path(f"/proc/{self.pid()}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "freezer" in controllers.split(","):
                return Path("/sys/fs/cgroup/freezer") / path.lstrip("/")
            if controllers == "" and not Path("/sys/fs/cgroup/freezer").exists():
                return Path("/sys/fs/cgroup") / path.lstrip("/")
        raise RuntimeError(f"{self.name} has no freezer cgroup")
