"""The physical floor: criu itself, with the options that our shim gives it, and nothing around it."""
import json
import os
import signal
import subprocess
import threading
import time

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
        freezer, pid = self.container.freezer(), self.container.pid()
        network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY) if self.network_is_as_new() else None
        set_frozen(freezer, True)
        try:
            return criu(["dump", "--tree", pid, "--images-dir", folder, "--root", self.root, "--leave-running",
                         "--freeze-cgroup", freezer, "--manage-cgroups=ignore", "--network-lock", "skip",
                         "--tcp-established", "--skip-in-flight", "--ghost-limit", 1 << 30, "-v1",
                         "--log-file", "dump.log", *self.same_mounts()], folder / "dump.log", network)
        finally:
            set_frozen(freezer, False)
            close(network)

    def restore(self, folder):
        """Milliseconds of `criu restore` of that dump beside the original; the copy is ended at once."""
        empty = folder.with_name(folder.name + ".empty")
        empty.mkdir(exist_ok=True)
        pidfile = empty.with_suffix(".pid")
        pidfile.unlink(missing_ok=True)
        argv = ["restore", "--images-dir", folder, "--root", self.root, "--restore-detached",
                "--manage-cgroups=ignore", "--tcp-established", "--network-lock", "skip", "--evasive-devices",
                "-v1", "--log-file", "restore.log", "--pidfile", pidfile, *self.new_mounts(empty)]
        # One descriptor each: criu closes it once it has it.
        streams = [os.open("/dev/null", os.O_RDWR) for _ in self.dump_record["stdio"]]
        for fd, stream in zip(streams, self.dump_record["stdio"]):
            argv += ["--inherit-fd", f"fd[{fd}]:{stream['key']}"]
        network = new_network() if self.network_is_as_new() else None
        took = criu(argv, folder / "restore.log", network, streams)
        for fd in (*streams, network):
            close(fd)
        os.kill(int(pidfile.read_text()), signal.SIGKILL)
        return took

    def network_is_as_new(self):
        """Whether our shim found nothing to capture in the network namespace: CRIU then runs in it."""
        return any(namespace["kind"] == "net" and namespace["place"] == "as-new"
                   for namespace in self.dump_record["namespaces"])

    def same_mounts(self):
        """At a dump, an external mount is named after its own place."""
        for mount in self.dump_record["externalMounts"]:
            yield from ("--external", f"mnt[{mount['point']}]:{mount['point']}")

    def new_mounts(self, empty):
        """At a restore, a masked file is covered by /dev/null and a masked directory by an empty one."""
        for mount in self.dump_record["externalMounts"]:
            source = "/dev/null" if mount["purpose"] == "maskedFile" else empty
            yield from ("--external", f"mnt[{mount['point']}]:{source}")


def criu(argv, log, network, passed=()):
    """Milliseconds of a criu command, run in a network namespace."""
    def enter():
        if network is not None:
            os.setns(network, os.CLONE_NEWNET)

    begun = time.perf_counter()
    done = subprocess.run(["criu", *map(str, argv)], pass_fds=passed, stdin=subprocess.DEVNULL, preexec_fn=enter,
                          capture_output=True, text=True)
    took = (time.perf_counter() - begun) * 1000
    if done.returncode != 0:
        raise RuntimeError(f"criu {argv[0]}: {done.stderr} {log.read_text()[-1000:] if log.exists() else ''}")
    return took


def close(fd):
    if fd is not None:
        os.close(fd)


def new_network():
    """A descriptor of a new network namespace with loopback up, made on a thread that ends with it."""
    found = []

    def make():
        os.unshare(os.CLONE_NEWNET)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        found.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return found[0]


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
