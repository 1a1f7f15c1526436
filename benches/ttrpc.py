"""Just enough ttrpc to call a shim's Task service directly, without a client in between.

A frame is a header of ten bytes (length, stream and message type, big-endian; flags) and one
protobuf message: a Request {1: service, 2: method, 3: payload} or a Response {1: Status {1: code,
2: message}, 2: payload}. Strings and messages are all that is ever sent here.
"""
import json
import socket
import struct
from pathlib import Path

TASKS = Path("/run/containerd/io.containerd.runtime.v2.task/default")
REQUEST, RESPONSE = 1, 2


class RpcError(Exception):
    """The shim answered with an error."""


def _varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out + bytes([number]))


def message(fields):
    """Encodes {number: str or bytes} as a protobuf message."""
    out = b""
    for number, value in fields.items():
        value = value.encode() if isinstance(value, str) else value
        out += _varint(number << 3 | 2) + _varint(len(value)) + value
    return out


def fields_of(data):
    """Decodes a protobuf message into {number: int or bytes}."""
    found, at = {}, 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            found[key >> 3] = varint()
        elif key & 7 == 2:
            size = varint()
            found[key >> 3] = data[at:at + size]
            at += size
        else:
            raise RpcError(f"an answer with wire type {key & 7}")
    return found


class TaskService:
    """A connection to the shim of one container."""

    def __init__(self, container):
        bootstrap = json.loads((TASKS / container / "bootstrap.json").read_text())
        self.service = f"containerd.task.v{bootstrap['version']}.Task"
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(bootstrap["address"].removeprefix("unix://"))
        self.stream = 1

    def call(self, method, fields):
        """Calls a method and returns its answer's fields."""
        request = message({1: self.service, 2: method, 3: message(fields)})
        self.socket.sendall(struct.pack(">IIBB", len(request), self.stream, REQUEST, 0) + request)
        self.stream += 2
        size, _, kind, _ = struct.unpack(">IIBB", self._read(10))
        response = fields_of(self._read(size))
        status = fields_of(response.get(1, b""))
        if kind != RESPONSE or status.get(1, 0) != 0:
            raise RpcError(status.get(2, b"no answer").decode(errors="replace"))
        return fields_of(response.get(2, b""))

    def _read(self, size):
        data = b""
        while len(data) < size:
            some = self.socket.recv(size - len(data))
            if not some:
                raise RpcError("the shim closed the connection")
            data += some
        return data
