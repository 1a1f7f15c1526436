"""terminal.py COLSxROWS [--on TEXT send=WORDS|size=COLSxROWS]... CMD [ARG...]

Runs CMD with a terminal of that size and prints what it prints. Whenever TEXT
has been printed, in the order given, sends WORDS (\\n, \\x03 and the like are
understood) or changes the size. Exits with CMD's status.
"""
import codecs
import fcntl
import os
import pty
import struct
import sys
import termios
import time


def set_size(fd, size):
    columns, rows = (int(n) for n in size.split("x"))
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def act(fd, action):
    kind, _, value = action.partition("=")
    if kind == "send":
        os.write(fd, codecs.decode(value, "unicode_escape").encode())
    else:
        set_size(fd, value)


def main():
    size, args, steps = sys.argv[1], sys.argv[2:], []
    while args[0] == "--on":
        steps.append((args[1].encode(), args[2]))
        args = args[3:]
    pid, fd = pty.fork()
    if pid == 0:
        time.sleep(0.05)  # Until the size is set.
        os.execvp(args[0], args)
    set_size(fd, size)
    seen = b""
    while True:
        try:
            chunk = os.read(fd, 65536)
        except OSError:
            break
        if not chunk:
            break
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        seen += chunk
        while steps and steps[0][0] in seen:
            seen = seen[seen.index(steps[0][0]) + len(steps[0][0]):]
            act(fd, steps.pop(0)[1])
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


main()
