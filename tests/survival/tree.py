"""A tree of processes that checks itself.

Each item below has a process of its own, which sets something up, and on demand checks that it is
still as it was, and leaves it so for the next check. The first process hands each a pipe to ask
and one to be answered by. A file /ask-N in the root asks all; /answer-N then holds one JSON object:
item -> "ok" or what is wrong. Some items fork further processes or start threads.
"""
import array
import ctypes
import errno
import fcntl
import json
import mmap
import os
import pty
import resource
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
import traceback

libc = ctypes.CDLL(None, use_errno=True)
ITEMS = []


def item(cls):
    ITEMS.append(cls)
    return cls


def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def same(found, wanted, what=""):
    assert found == wanted, f"{what}: {found!r} instead of {wanted!r}"


def child(body):
    pid = os.fork()
    if pid == 0:
        try:
            body()
        finally:
            os._exit(0)
    return pid


def sleep_for_ever():
    while True:
        time.sleep(10)


@item
class Pipe:
    """With bytes that nobody has read yet, and a full one."""
    def __init__(self):
        self.reader, self.writer = os.pipe()
        self.full_reader, self.full_writer = os.pipe()
        os.set_blocking(self.full_writer, False)
        self.filled = 0
        try:
            while True:
                self.filled += os.write(self.full_writer, b"x" * 4096)
        except BlockingIOError:
            pass
        os.write(self.writer, b"waiting")

    def check(self):
        same(os.read(self.reader, 100), b"waiting")
        os.write(self.writer, b"waiting")
        try:
            os.write(self.full_writer, b"y" * 4096)
            raise AssertionError("the full pipe is not full")
        except BlockingIOError:
            pass
        same(fcntl.ioctl(self.full_reader, termios.FIONREAD, b"\0" * 4), struct.pack("i", self.filled))


@item
class Fifo:
    def __init__(self):
        os.mkfifo("/tree.fifo")
        self.fd = os.open("/tree.fifo", os.O_RDWR)
        os.write(self.fd, b"in the fifo")

    def check(self):
        same(os.read(self.fd, 100), b"in the fifo")
        os.write(self.fd, b"in the fifo")


@item
class UnixPairs:
    """Stream, datagram and sequence, with queued messages; across a fork."""
    def __init__(self):
        kinds = [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET]
        self.pairs = [socket.socketpair(socket.AF_UNIX, kind) for kind in kinds]
        for one, _ in self.pairs:
            one.sendall(b"first")
            one.sendall(b"second")
        ours, theirs = socket.socketpair()
        def echo():
            while True:
                theirs.sendall(theirs.recv(100).upper())
        self.echo = ours
        child(echo)

    def check(self):
        for index, (one, other) in enumerate(self.pairs):
            if index == 0:
                same(other.recv(100), b"firstsecond")
            else:
                same((other.recv(100), other.recv(100)), (b"first", b"second"))
            other.sendall(b"back")
            same(one.recv(100), b"back")
            one.sendall(b"first")
            one.sendall(b"second")
        self.echo.sendall(b"hello")
        same(self.echo.recv(100), b"HELLO")


@item
class UnixListeners:
    """A path and an abstract name, with accepted connections and one that waits."""
    NAMES = ["/tree.sock", "\0tree-abstract"]

    def __init__(self):
        self.listeners, self.held, self.waiting = [], [], []
        for name in self.NAMES:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(name)
            listener.listen(8)
            self.listeners.append(listener)
            client = socket.socket(socket.AF_UNIX)
            client.connect(name)
            self.held.append((client, listener.accept()[0]))
            self.wait_at(name)
        self.datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.datagrams.bind("/tree.dgram")
        self.sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sender.connect("/tree.dgram")
        self.sender.send(b"queued")

    def wait_at(self, name):
        client = socket.socket(socket.AF_UNIX)
        client.connect(name)
        self.waiting.append(client)

    def check(self):
        for listener, name, (client, server) in zip(self.listeners, self.NAMES, self.held):
            client.sendall(b"ping")
            same(server.recv(10), b"ping")
            accepted = listener.accept()[0]
            self.waiting.pop(0).sendall(b"let me in")
            same(accepted.recv(100), b"let me in")
            accepted.close()
            same(listener.getsockname(), name if name[0] == "/" else name.encode())
            self.wait_at(name)
        same(self.datagrams.recv(100), b"queued")
        self.sender.send(b"queued")


@item
class Epoll:
    def __init__(self):
        self.poll = select.epoll()
        self.reader, self.writer = os.pipe()
        self.event = os.eventfd(0, os.EFD_NONBLOCK)
        self.poll.register(self.reader, select.EPOLLIN | select.EPOLLET)
        self.poll.register(self.event, select.EPOLLIN)
        os.write(self.writer, b"a")
        self.poll.poll(1)

    def check(self):
        os.read(self.reader, 10)
        self.poll.poll(0)
        os.write(self.writer, b"b")
        same([fd for fd, _ in self.poll.poll(5)], [self.reader], "edge")
        os.eventfd_write(self.event, 1)
        same([fd for fd, _ in self.poll.poll(5)], [self.event], "level")
        same([fd for fd, _ in self.poll.poll(5)], [self.event], "level again")
        os.eventfd_read(self.event)


@item
class Eventfd:
    def __init__(self):
        self.plain = os.eventfd(41)

    def check(self):
        same(os.eventfd_read(self.plain), 41)
        os.eventfd_write(self.plain, 41)


@item
class Timerfd:
    """A periodic one, and one that is due in an hour."""
    def __init__(self):
        self.periodic = call("timerfd_create", 1, os.O_CLOEXEC)
        self.far = call("timerfd_create", 1, os.O_NONBLOCK)
        call("timerfd_settime", self.periodic, 0, struct.pack("4q", 0, 50_000_000, 0, 50_000_000), None)
        call("timerfd_settime", self.far, 0, struct.pack("4q", 0, 0, 3600, 0), None)
        self.last = 3600

    def check(self):
        os.read(self.periodic, 8)
        assert struct.unpack("q", os.read(self.periodic, 8))[0] >= 1
        left = ctypes.create_string_buffer(32)
        call("timerfd_gettime", self.far, left)
        seconds = struct.unpack("4q", left.raw)[2]
        assert self.last - 600 < seconds <= self.last, f"{seconds} s are left of {self.last}"
        self.last = seconds


@item
class PosixTimers:
    def __init__(self):
        self.rung = 0
        signal.signal(signal.SIGRTMIN + 3, self.ring)
        timer = ctypes.c_void_p()
        event = ctypes.create_string_buffer(struct.pack("qii", 77, signal.SIGRTMIN + 3, 0).ljust(64, b"\0"))
        call("timer_create", 1, event, ctypes.byref(timer))
        call("timer_settime", timer, 0, struct.pack("4q", 0, 30_000_000, 0, 30_000_000), None)

    def ring(self, *_):
        self.rung += 1

    def check(self):
        before = self.rung
        end = time.monotonic() + 10
        while self.rung < before + 3:
            assert time.monotonic() < end, "the timer is dead"
            time.sleep(0.01)


@item
class Itimers:
    def __init__(self):
        self.rung = 0
        signal.signal(signal.SIGALRM, self.ring)
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        signal.signal(signal.SIGVTALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_VIRTUAL, 3000, 0)

    def ring(self, *_):
        self.rung += 1

    def check(self):
        before = self.rung
        end = time.monotonic() + 10
        while self.rung < before + 2:
            assert time.monotonic() < end, "the interval timer is dead"
            time.sleep(0.01)
        left = signal.getitimer(signal.ITIMER_VIRTUAL)[0]
        assert 2000 < left < 3001, f"{left} s of virtual time are left"


@item
class Signals:
    """Pending ones, for the process and for a thread, with a value; a signalfd; handlers and masks."""
    def __init__(self):
        blocked = {signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN + 5}
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        signal.signal(signal.SIGWINCH, self.handler)
        signal.siginterrupt(signal.SIGWINCH, False)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        mask = struct.pack("Q", 1 << (signal.SIGUSR2 - 1))
        self.fd = call("signalfd", -1, mask, 0)
        self.blocked = blocked
        self.handled = 0
        self.send()

    def handler(self, *_):
        self.handled += 1

    def send(self):
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR2)
        value = ctypes.c_void_p(4711)
        call("sigqueue", os.getpid(), int(signal.SIGRTMIN + 5), value)
        call("sigqueue", os.getpid(), int(signal.SIGRTMIN + 5), value)

    def check(self):
        same(signal.pthread_sigmask(signal.SIG_BLOCK, []), self.blocked, "mask")
        same(signal.sigpending(), self.blocked, "pending")
        same(struct.unpack("I", os.read(self.fd, 128)[:4])[0], signal.SIGUSR2, "signalfd")
        same(signal.sigwaitinfo({signal.SIGUSR1}).si_signo, signal.SIGUSR1)
        for _ in range(2):
            information = ctypes.create_string_buffer(128)
            mask = struct.pack("Q", 1 << (signal.SIGRTMIN + 5 - 1))
            call("sigwaitinfo", mask.ljust(128, b"\0"), information)
            same(struct.unpack_from("q", information.raw, 24)[0], 4711, "value")
        os.kill(os.getpid(), signal.SIGWINCH)
        time.sleep(0.01)
        assert self.handled > 0, "the handler is gone"
        same(signal.getsignal(signal.SIGTTOU), signal.SIG_IGN)
        self.send()


@item
class DeletedFiles:
    """Open and unlinked; mapped and unlinked."""
    def __init__(self):
        self.file = open("/tree.deleted", "w+b")
        self.file.write(b"ghost" * 1000)
        self.file.flush()
        self.file.seek(100)
        os.unlink("/tree.deleted")
        mapped = open("/tree.mapped-and-gone", "w+b")
        mapped.truncate(8192)
        self.map = mmap.mmap(mapped.fileno(), 8192)
        self.map[4096:4100] = b"here"
        os.unlink("/tree.mapped-and-gone")

    def check(self):
        same(self.file.tell(), 100)
        same(os.pread(self.file.fileno(), 5000, 0), b"ghost" * 1000)
        same(os.fstat(self.file.fileno()).st_nlink, 0)
        same(self.map[4096:4100], b"here")


@item
class Files:
    """Offsets, flags, shared descriptions, a directory, append mode."""
    def __init__(self):
        with open("/tree.data", "wb") as file:
            file.write(bytes(range(256)) * 16)
        self.file = os.open("/tree.data", os.O_RDWR)
        os.lseek(self.file, 1000, os.SEEK_SET)
        self.shared = os.dup(self.file)
        self.append = os.open("/tree.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.directory = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.path = os.open("/tree.data", os.O_PATH)
        os.mkdir("/tree.cwd", 0o711)
        os.chdir("/tree.cwd")
        os.umask(0o027)
        self.lines = 0

    def check(self):
        same(os.lseek(self.shared, 0, os.SEEK_CUR), 1000, "offset")
        same(os.read(self.file, 4), bytes(index % 256 for index in range(1000, 1004)))
        same(os.lseek(self.shared, 0, os.SEEK_CUR), 1004, "shared offset")
        os.lseek(self.file, 1000, os.SEEK_SET)
        os.write(self.append, b"line\n")
        self.lines += 1
        same(os.stat("/tree.log").st_size, 5 * self.lines)
        same(fcntl.fcntl(self.directory, fcntl.F_GETFD), fcntl.FD_CLOEXEC)
        same(os.fstat(self.path).st_size, 4096)
        same(os.getcwd(), "/tree.cwd")
        same(os.umask(0o027), 0o027, "umask")


@item
class SharedMemory:
    """Between processes: anonymous, memfd with a seal, /dev/shm, System V."""
    def __init__(self):
        self.map = mmap.mmap(-1, 8192)
        self.memfd = os.memfd_create("tree", os.MFD_ALLOW_SEALING)
        os.write(self.memfd, b"sealed")
        fcntl.fcntl(self.memfd, 1033, 2 | 4)  # F_ADD_SEALS: no shrinking, no growing
        shm = os.open("/dev/shm/tree", os.O_RDWR | os.O_CREAT)
        os.ftruncate(shm, 4096)
        self.shm = mmap.mmap(shm, 4096)
        self.segment = call("shmget", 0x4711, 4096, 0o1600)
        libc.shmat.restype = ctypes.c_void_p
        self.address = libc.shmat(self.segment, None, 0)
        self.semaphores = call("semget", 0x4712, 3, 0o1600)
        call("semctl", self.semaphores, 1, 16, 23)
        self.queue = call("msgget", 0x4713, 0o1600)
        call("msgsnd", self.queue, struct.pack("q", 5) + b"message", 7, 0)
        self.map[0:4] = b"\0\0\0\0"
        def count():
            while True:
                value = struct.unpack("I", self.map[0:4])[0] + 1
                self.map[0:4] = struct.pack("I", value)
                ctypes.c_uint32.from_address(self.address).value = value
                self.shm[0:4] = struct.pack("I", value)
                time.sleep(0.005)
        child(count)

    def check(self):
        def values():
            return [struct.unpack("I", self.map[0:4])[0], struct.unpack("I", self.shm[0:4])[0],
                    ctypes.c_uint32.from_address(self.address).value]
        before = values()
        end = time.monotonic() + 10
        while not all(now > then for now, then in zip(values(), before)):
            assert time.monotonic() < end, f"not shared any more: {values()}, {before}"
            time.sleep(0.01)
        same(os.pread(self.memfd, 10, 0), b"sealed")
        same(fcntl.fcntl(self.memfd, 1034), 2 | 4, "seals")
        same(call("shmget", 0x4711, 0, 0), self.segment)
        same(call("semctl", self.semaphores, 1, 12, 0), 23, "semaphore")
        message = ctypes.create_string_buffer(64)
        same(call("msgrcv", self.queue, message, 50, 5, 0o4000), 7, "message")
        same(message.raw[8:15], b"message")
        call("msgsnd", self.queue, struct.pack("q", 5) + b"message", 7, 0)


@item
class Pty:
    """A pair inside, with output that waits, a size, raw mode, and a session on it."""
    def __init__(self):
        self.master, self.slave = pty.openpty()
        attributes = termios.tcgetattr(self.slave)
        attributes[1] &= ~termios.OPOST
        termios.tcsetattr(self.slave, termios.TCSANOW, attributes)
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("4H", 33, 77, 0, 0))
        self.pid, self.shell = pty.fork()
        if self.pid == 0:
            os.execv("/bin/busybox", ["sh", "-c", "stty -echo; while read line; do echo \"got $line\"; done"])
        time.sleep(0.5)

    def check(self):
        os.write(self.slave, b"out\n")
        same(os.read(self.master, 100), b"out\n")
        same(fcntl.ioctl(self.master, termios.TIOCGWINSZ, b"\0" * 8), struct.pack("4H", 33, 77, 0, 0))
        os.write(self.shell, b"line\n")
        text = b""
        while b"got line" not in text:
            assert select.select([self.shell], [], [], 10)[0], f"the shell on the pty is silent: {text}"
            text += os.read(self.shell, 100)
        same(os.tcgetpgrp(self.shell), self.pid, "foreground")


@item
class Inotify:
    """On a tmpfs: an overlay has no file handles by which CRIU could find the watched file."""
    def __init__(self):
        os.mkdir("/dev/shm/tree.watched")
        self.fd = call("inotify_init1", os.O_NONBLOCK)
        self.watch = call("inotify_add_watch", self.fd, b"/dev/shm/tree.watched", 0x100)
        self.number = 0

    def check(self):
        self.number += 1
        open(f"/dev/shm/tree.watched/{self.number}", "w").close()
        watch, mask = struct.unpack_from("iI", os.read(self.fd, 4096))
        same((watch, mask), (self.watch, 0x100))


@item
class Locks:
    """flock, record and open-file-description locks still keep another process out."""
    def __init__(self):
        self.files = [open(f"/tree.lock{kind}", "w+") for kind in range(3)]
        fcntl.flock(self.files[0], fcntl.LOCK_EX)
        fcntl.lockf(self.files[1], fcntl.LOCK_EX, 10, 5)
        fcntl.fcntl(self.files[2], 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))  # F_OFD_SETLK

    def check(self):
        def refused(lock):
            try:
                lock()
            except OSError as error:
                return error.errno in (errno.EAGAIN, errno.EACCES)
            return False
        def other():
            flocked, recorded, described = [open(f"/tree.lock{kind}", "w+") for kind in range(3)]
            found = [refused(lambda: fcntl.flock(flocked, fcntl.LOCK_EX | fcntl.LOCK_NB)),
                     refused(lambda: fcntl.lockf(recorded, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 7)),
                     not refused(lambda: fcntl.lockf(recorded, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 50)),
                     refused(lambda: fcntl.lockf(described, fcntl.LOCK_EX | fcntl.LOCK_NB))]
            os._exit(sum(1 << bit for bit, held in enumerate(found) if not held))
        status = os.waitstatus_to_exitcode(os.waitpid(child(other), 0)[1])
        same(status, 0, "bits of locks that are lost")


@item
class Mappings:
    """Files mapped shared and private, with changes; guard pages; a stack's worth of memory."""
    def __init__(self):
        with open("/tree.map", "wb") as file:
            file.write(b"original" * 1024)
        self.fd = os.open("/tree.map", os.O_RDWR)
        self.shared = mmap.mmap(self.fd, 8192, mmap.MAP_SHARED)
        self.private = mmap.mmap(self.fd, 8192, mmap.MAP_PRIVATE)
        self.private[4096:4103] = b"changed"
        self.memory = mmap.mmap(-1, 4 << 20, mmap.MAP_PRIVATE)
        for at in range(0, len(self.memory), 4096):
            self.memory[at:at + 8] = struct.pack("q", at)
        self.text = {number: str(number) for number in range(20_000)}
        self.number = 0

    def check(self):
        self.number += 1
        self.shared[0:8] = b"shared%02d" % self.number
        same(os.pread(self.fd, 8, 0), b"shared%02d" % self.number)
        same(self.private[4096:4103], b"changed")
        same(os.pread(self.fd, 8, 4096), b"original", "private changes stay private")
        for at in range(0, len(self.memory), 4096):
            same(self.memory[at:at + 8], struct.pack("q", at), "memory")
        assert all(self.text[number] == str(number) for number in range(20_000))


@item
class Tcp:
    """A listener and connections on IPv4 and IPv6, with data under way; UDP."""
    def __init__(self):
        self.sets = []
        for family, address in [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]:
            listener = socket.create_server((address, 0), family=family)
            client = socket.create_connection(listener.getsockname()[:2])
            server = listener.accept()[0]
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(b"under way")
            udp = socket.socket(family, socket.SOCK_DGRAM)
            udp.bind((address, 0))
            self.sets.append((listener, client, server, udp))
        time.sleep(0.2)

    def check(self):
        for listener, client, server, udp in self.sets:
            server.settimeout(10)
            client.settimeout(10)
            same(server.recv(100), b"under way")
            server.sendall(b"answer")
            same(client.recv(100), b"answer")
            client.sendall(b"under way")
            same(client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), 1)
            fresh = socket.create_connection(listener.getsockname()[:2])
            accepted = listener.accept()[0]
            fresh.sendall(b"new")
            same(accepted.recv(10), b"new")
            accepted.close()
            fresh.close()
            udp.sendto(b"datagram", udp.getsockname())
            same(udp.recv(100), b"datagram")


@item
class Zombies:
    """Unreaped children with their statuses."""
    def __init__(self):
        self.make()

    def make(self):
        self.exited = child(lambda: os._exit(7))
        self.killed = child(sleep_for_ever)
        os.kill(self.killed, signal.SIGKILL)
        time.sleep(0.1)

    def check(self):
        same(os.waitstatus_to_exitcode(os.waitpid(self.exited, 0)[1]), 7)
        same(os.waitstatus_to_exitcode(os.waitpid(self.killed, 0)[1]), -signal.SIGKILL)
        self.make()


@item
class Sessions:
    """A session, a group in it, and an orphan of init's."""
    def __init__(self):
        os.setsid()
        self.grouped = child(sleep_for_ever)
        os.setpgid(self.grouped, self.grouped)
        reader, writer = os.pipe()
        def orphan():
            os.setsid()
            os.write(writer, struct.pack("i", child(sleep_for_ever)))
        os.waitpid(child(orphan), 0)
        self.orphan = struct.unpack("i", os.read(reader, 4))[0]
        os.close(reader)
        os.close(writer)
        time.sleep(0.1)

    def parent(self, pid):
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rsplit(")", 1)[1].split()[1])

    def check(self):
        same(os.getsid(0), os.getpid())
        same(os.getpgid(self.grouped), self.grouped)
        same(os.getsid(self.grouped), os.getpid())
        same(self.parent(self.orphan), 1, "the orphan's parent")


@item
class Settings:
    """What belongs to a process: nice, limits, name, credentials, capabilities."""
    def __init__(self):
        os.nice(7)
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, 400))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        call("prctl", 15, b"tree-settings", 0, 0, 0)
        os.setgroups([5, 6, 7])
        call("prctl", 24, 26, 0, 0, 0)  # PR_CAPBSET_DROP CAP_SYS_TTY_CONFIG
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("300")
        call("prctl", 36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
        self.before = self.facts()

    def facts(self):
        subreaper = ctypes.c_int()
        call("prctl", 37, ctypes.byref(subreaper), 0, 0, 0)
        names = ("Name", "Uid", "Gid", "Groups", "Cap", "NoNewPrivs", "Seccomp")
        with open("/proc/self/status") as file:
            status = [line for line in file if line.startswith(names)]
        with open("/proc/self/oom_score_adj") as file:
            score = file.read()
        return (status, score, os.nice(0), resource.getrlimit(resource.RLIMIT_NOFILE), subreaper.value,
                resource.getrlimit(resource.RLIMIT_CORE), os.environ.get("TREE"))

    def check(self):
        same(self.facts(), self.before)


@item
class Threads:
    """Threads that count, wait in a futex, in a read and in a sleep; thread names and locals."""
    def __init__(self):
        self.counts = [0] * 4
        self.condition = threading.Condition()
        self.reader, self.writer = os.pipe()
        self.woken = self.read = 0
        self.local = threading.local()
        for index in range(4):
            threading.Thread(target=self.count, args=(index,), daemon=True).start()
        threading.Thread(target=self.wait, daemon=True).start()
        threading.Thread(target=self.read_on, daemon=True).start()
        threading.Thread(target=sleep_for_ever, daemon=True).start()

    def count(self, index):
        call("prctl", 15, b"counter-%d" % index, 0, 0, 0)
        self.local.index = index
        while True:
            self.counts[self.local.index] += 1
            time.sleep(0.005)

    def wait(self):
        with self.condition:
            while True:
                self.condition.wait()
                self.woken += 1

    def read_on(self):
        while True:
            os.read(self.reader, 1)
            self.read += 1

    def check(self):
        before = (list(self.counts), self.woken, self.read)
        with self.condition:
            self.condition.notify()
        os.write(self.writer, b"x")
        end = time.monotonic() + 10
        while not (all(now > then for now, then in zip(self.counts, before[0]))
                   and self.woken > before[1] and self.read > before[2]):
            assert time.monotonic() < end, f"{self.counts}, {self.woken}, {self.read} after {before}"
            time.sleep(0.01)
        names = {open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")}
        assert {f"counter-{index}" for index in range(4)} <= names, names


@item
class Passed:
    """A descriptor that lies in a socket's queue, sent and not yet received."""
    def __init__(self):
        self.one, self.other = socket.socketpair()
        self.send()

    def send(self):
        reader, writer = os.pipe()
        os.write(writer, b"sent")
        socket.send_fds(self.one, [b"m"], [reader])
        os.close(reader)
        os.close(writer)

    def check(self):
        message, fds, _, _ = socket.recv_fds(self.other, 10, 4)
        same((message, len(fds)), (b"m", 1))
        same(os.read(fds[0], 10), b"sent")
        os.close(fds[0])
        self.send()


@item
class Busybox:
    """A shell that forks all the time, and reads its orders from a pipe."""
    def __init__(self):
        script = "while read line; do n=$((n+1)); true; echo $n $(echo $line | tr a-z A-Z); done"
        self.shell = subprocess.Popen(["/bin/busybox", "sh", "-c", script], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE)
        churn = "while :; do /bin/busybox true; /bin/busybox sleep 0.01; done"
        self.churn = subprocess.Popen(["/bin/busybox", "sh", "-c", churn])
        self.number = 0

    def check(self):
        self.number += 1
        self.shell.stdin.write(b"hello\n")
        self.shell.stdin.flush()
        same(self.shell.stdout.readline(), b"%d HELLO\n" % self.number)
        same(self.churn.poll(), None, "the shell that forks")


class Worker:
    """An item in its process, seen from the first process."""
    def __init__(self, cls):
        self.name = cls.__name__
        asked, self.ask = os.pipe()
        self.answer, answered = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.ask)
            os.close(self.answer)
            serve(cls, asked, answered)
        os.close(asked)
        os.close(answered)
        self.buffer = b""
        self.set_up = self.hear()

    def check(self):
        os.write(self.ask, b"?")
        return self.hear()

    def hear(self):
        end = time.monotonic() + 40
        while b"\n" not in self.buffer:
            if not select.select([self.answer], [], [], max(0, end - time.monotonic()))[0]:
                return "no answer"
            chunk = os.read(self.answer, 65536)
            if not chunk:
                return "its process is gone"
            self.buffer += chunk
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)


def serve(cls, asked, answered):
    def attempt(action):
        try:
            return action(), "ok"
        except BaseException:
            return None, traceback.format_exc(limit=-2)
    def tell(verdict):
        os.write(answered, json.dumps(verdict).encode() + b"\n")
    subject, verdict = attempt(cls)
    tell(verdict)
    while os.read(asked, 1):
        tell(attempt(subject.check)[1])
    os._exit(0)


def main():
    workers = [Worker(cls) for cls in ITEMS]
    verdicts = {worker.name: worker.set_up for worker in workers}
    number = 0
    while True:
        with open(f"/answer-{number}.new", "w") as file:
            json.dump(verdicts, file)
        os.rename(f"/answer-{number}.new", f"/answer-{number}")
        number += 1
        while not os.path.exists(f"/ask-{number}"):
            time.sleep(0.05)
        verdicts = {worker.name: worker.check() for worker in workers}


main()
