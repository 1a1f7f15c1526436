"""The system calls that Python 3.11 lacks: mounts, namespaces, and the parent's death signal."""
import ctypes
import os
import signal
from pathlib import Path

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x20000, 0x2000000, 0x4000000
CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x8000000, 0x20000000, 0x40000000
PR_SET_PDEATHSIG = 1
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
libc = ctypes.CDLL(None, use_errno=True)


def checked(result, what):
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def mount(source, target, fstype=None, flags=0, data=None):
    args = [None if a is None else os.fsencode(a) for a in (source, target, fstype, data)]
    Path(target).mkdir(parents=True, exist_ok=True)
    checked(libc.mount(args[0], args[1], args[2], ctypes.c_ulong(flags), args[3]), f"mount {target}")


def bind(source, target, read_only=False):
    if Path(source).is_dir():
        Path(target).mkdir(parents=True, exist_ok=True)
    else:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).touch()
    for flags in (MS_BIND | MS_REC, MS_BIND | MS_REMOUNT | MS_RDONLY)[:2 if read_only else 1]:
        checked(libc.mount(os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(flags), None),
                f"bind {source} to {target}")


def make_mounts_private():
    checked(libc.mount(None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None), "make mounts private")


def pivot_root(root):
    """Makes root the root, and detaches the old one."""
    os.chdir(root)
    checked(libc.syscall(SYS_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    checked(libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir("/")


def unshare(flags):
    checked(libc.unshare(flags), "unshare")


def die_with_parent(parent):
    """Asks for SIGKILL at the parent's end; whether the parent was still there to ask for it."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return f"PPid:\t{parent}\n" in Path("/proc/self/status").read_text()
