"""The physical floor: criu itself, with the options that our shim gives it, and nothing around it."""
import json
import os
import subprocess
import time

from containers import timed
from ttrpc import TASKS


class Floor:
    """Dumps and restores the process of a container of our runtime with a bare criu command.

    `world` is a world that our shim has made of it: it records what the dump has to know."""

    def __init__(self, container, world):
        self.container = container
        self.dump_record = json.loads((world / "world.json").read_text())["dump"]
        self.root = TASKS / container.name / "rootfs"

    def dump(self, folder):
        """Milliseconds of `criu dump` of the frozen container, which lives on."""
        freezer = self.container.freezer()
        set_frozen(freezer, True)
        try:
            return timed("criu", "dump", "--tree", self.container.pid(), "--images-dir", folder, "--root", self.root,
                         "--leave-running", "--freeze-cgroup", freezer, "--manage-cgroups=ignore",
                         "--network-lock", "skip", "--tcp-established", "--skip-in-flight",
                         "--ghost-limit", 1 << 30, "-v1", "--log-file", "dump.log", *self.same_mounts())
        finally:
            set_frozen(freezer, False)

    def restore(self, folder):
        """Milliseconds of `criu restore` of that dump beside the original; the copy is ended at once."""
        empty = folder.with_name(folder.name + ".empty")
        empty.mkdir(exist_ok=True)
        pidfile = empty.with_suffix(".pid")
        pidfile.unlink(missing_ok=True)
        argv = ["criu", "restore", "--images-dir", folder, "--root", self.root, "--restore-detached",
                "--manage-cgroups=ignore", "--tcp-established", "--network-lock", "skip", "--evasive-devices",
                "-v1", "--log-file", "restore.log", "--pidfile", pidfile, *self.new_mounts(empty)]
        # One descriptor each: criu closes it once it has it.
        nulls = [os.open("/dev/null", os.O_RDWR) for _ in self.dump_record["stdio"]]
        for null, stream in zip(nulls, self.dump_record["stdio"]):
            argv += ["--inherit-fd", f"fd[{null}]:{stream['key']}"]
        begun = time.perf_counter()
        done = subprocess.run(list(map(str, argv)), pass_fds=nulls, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True)
        took = (time.perf_counter() - begun) * 1000
        for null in nulls:
            os.close(null)
        if done.returncode != 0:
            raise RuntimeError(f"criu restore: {done.stderr} {(folder / 'restore.log').read_text()[-1000:]}")
        subprocess.run(["kill", "-KILL", pidfile.read_text().strip()], check=True)
        return took

    def same_mounts(self):
        """At a dump, an external mount is named after its own place."""
        for mount in self.dump_record["externalMounts"]:
            yield from ("--external", f"mnt[{mount['point']}]:{mount['point']}")

    def new_mounts(self, empty):
        """At a restore, a masked file is covered by /dev/null and a masked directory by an empty one."""
        for mount in self.dump_record["externalMounts"]:
            source = "/dev/null" if mount["purpose"] == "maskedFile" else empty
            yield from ("--external", f"mnt[{mount['point']}]:{source}")


def set_frozen(freezer, frozen):
    """Freezes or thaws a cgroup of either version and waits until it is so."""
    first = freezer / "freezer.state"
    if first.exists():
        word = "FROZEN" if frozen else "THAWED"
        first.write_text(word)
        while first.read_text().strip() != word:
            time.sleep(0.0005)
        return
    (freezer / "cgroup.freeze").write_text("1" if frozen else "0")
    while f"frozen {int(frozen)}" not in (freezer / "cgroup.events").read_text():
        time.sleep(0.0005)
