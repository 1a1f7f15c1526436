"""The cgroups of one lab: a cgroup of the lab's name in each hierarchy of the host, v1, v2 or both."""
import errno
import os
import signal
import time
from functools import cache
from pathlib import Path

BASE = Path("/sys/fs/cgroup")


@cache
def hierarchies():
    """(mount point, version, mount options) of each cgroup hierarchy of this host.

    Read once: within a cgroup namespace the host's mounts look different.
    """
    found = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, right = line.split(" - ")
        root, point = left.split()[3:5]
        fstype, _, options = right.split()
        if fstype in ("cgroup", "cgroup2") and root == "/" and Path(point).is_relative_to(BASE):
            wanted = [o for o in options.split(",") if o not in ("rw", "xattr") and "=" not in o or "name=" in o]
            found[point] = (Path(point), 2 if fstype == "cgroup2" else 1, ",".join(wanted))
    return list(found.values())


def unified():
    """Whether this host has cgroup v2 alone (else: v1, perhaps with a v2 hierarchy for tracking)."""
    return all(point == BASE for point, _, _ in hierarchies())


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


def enable_controllers(group):
    """Turns every controller on for the children of a v2 cgroup, as far as the kernel lets us."""
    for controller in (group / "cgroup.controllers").read_text().split():
        try:
            write(group / "cgroup.subtree_control", f"+{controller}")
        except OSError:
            pass


def make(name):
    groups = []
    for point, version, _ in hierarchies():
        group = point / name
        if unified():
            enable_controllers(point)
        group.mkdir()
        for file in ("cpuset.cpus", "cpuset.mems"):
            if version == 1 and (group / file).exists():
                write(group / file, (point / file).read_text())
        groups.append(group)
    return groups


def subgroups(group):
    """A cgroup and all below it, parents first."""
    return [Path(path) for path, _, _ in os.walk(group)]


def remove(name, patience=20.0):
    """Waits until the lab's processes are gone (their init is dead or dying) and removes its cgroups."""
    groups = [point / name for point, _, _ in hierarchies() if (point / name).is_dir()]
    deadline = time.monotonic() + patience
    delay = 0.002
    while groups and time.monotonic() < deadline:
        for group in groups:
            for sub in reversed(subgroups(group)):
                thaw(sub)
                try:
                    sub.rmdir()
                except OSError as e:
                    if e.errno not in (errno.EBUSY, errno.ENOENT):
                        raise
        groups = [g for g in groups if g.is_dir()]
        if time.monotonic() > deadline - patience / 2:
            kill_members(groups)
        time.sleep(delay)
        delay = min(delay * 2, 0.1)
    return not groups


def thaw(group):
    """A frozen process of a v1 freezer does not even die of SIGKILL."""
    state = group / "freezer.state"
    try:
        if state.exists() and state.read_text().strip() != "THAWED":
            write(state, "THAWED")
    except OSError:
        pass


def thaw_all(top):
    for sub in subgroups(top):
        thaw(sub)


def kill_members(groups):
    for group in groups:
        for sub in subgroups(group):
            try:
                for pid in (sub / "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
            except (FileNotFoundError, ProcessLookupError):
                pass
