"""What the engine and a visit say to each other, over one stream each way: a socket, or a machine's frames.

    engine                                        visit
      │ message (where to go: containers only) ─────▶│
      │ message (what to do) ───────────────────────▶│
      │ data … end (an archive that comes in) ──────▶│
      │◀──────────────── message {"ok": …} or {"error": failure}   found; nothing more comes after an error
      │◀──────────────── data …                      an archive that goes out
      │◀──────────────── message {"end": …} or {"error": failure}

    frame:  kind u8 │ length u32, big endian │ payload

A stream that ends before its `end` was broken off: the visit stops then. The engine takes what comes for an attacker's.
"""

from __future__ import annotations

import errno
import json
import os
import select
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from bothy.tar.pack import TRAILER, Parts, Piece

DATA, MESSAGE, END = 1, 2, 3
MAX_FRAME = 1 << 20
CHUNK = 256 * 1024
HEADER = struct.Struct(">BI")


class WireError(ValueError):
    """What came is not of this protocol."""


class BrokenOff(ConnectionError):
    """The other side has gone, or given up."""


class Frame(NamedTuple):
    kind: int
    payload: bytes


def encode(kind: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(kind, len(payload)) + payload


def encode_message(message: dict[str, Any]) -> bytes:
    """A message. Raises ValueError for one that is too long."""
    payload = json.dumps(message, separators=(",", ":")).encode()
    if len(payload) > MAX_FRAME:
        raise ValueError(f"a message of {len(payload)} bytes, {MAX_FRAME} fit")
    return encode(MESSAGE, payload)


def message_of(payload: bytes) -> dict[str, Any]:
    """Raises WireError."""
    try:
        message = json.loads(payload)
    except (ValueError, RecursionError) as exc:
        raise WireError(f"a message is not JSON: {exc!r}") from None
    if not isinstance(message, dict):
        raise WireError("a message is not an object")
    return message


class Decoder:
    """Cuts what arrives into frames: messages whole, data as it comes, a frame of it in several if it comes so."""

    def __init__(self) -> None:
        self._kind = 0
        self._left = 0
        self._kept = b""  # of a header or a message

    def feed(self, data: bytes) -> list[Frame]:
        """What can be told now. Raises WireError."""
        frames: list[Frame] = []
        while data:
            if not self._kind:
                data = self._kept + data
                self._kept = b""
                if len(data) < HEADER.size:
                    self._kept = data
                    break
                self._begin(data)
                data = data[HEADER.size :]
            if self._kind == DATA:
                piece, data = (data, b"") if len(data) <= self._left else (data[: self._left], data[self._left :])
                self._left -= len(piece)
                if piece:
                    frames.append(Frame(DATA, piece))
                if self._left:
                    break
            else:
                data = self._kept + data
                if len(data) < self._left:
                    self._kept = data
                    break
                frames.append(Frame(self._kind, data[: self._left]))
                self._kept, data = b"", data[self._left :]
            self._kind = 0
        return frames

    def _begin(self, data: bytes) -> None:
        kind, length = HEADER.unpack_from(data)
        if kind not in (DATA, MESSAGE, END) or length > MAX_FRAME:
            raise WireError(f"frame of kind {kind} and {length} bytes")
        self._kind, self._left = kind, length


class Line:
    """The visit's side, blocking."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._in, self._out = incoming, outgoing
        self._waiting = bytearray()
        self._poll = select.poll()
        self._poll.register(incoming, 0)  # hang-ups are told anyway

    # In

    def message(self) -> dict[str, Any]:
        """The next message. Raises BrokenOff, WireError."""
        kind, length = self._head()
        if kind != MESSAGE:
            raise WireError("a message was expected")
        return message_of(self._exactly(length))

    def incoming(self) -> Iterator[bytes]:
        """The archive that comes in, in pieces. Raises BrokenOff, WireError."""
        while True:
            kind, left = self._head()
            if kind == END:
                return
            if kind != DATA:
                raise WireError("data was expected")
            while left:
                data = self._read(min(left, CHUNK))
                left -= len(data)
                yield data

    def _head(self) -> tuple[int, int]:
        kind, length = HEADER.unpack(self._exactly(HEADER.size))
        if length > MAX_FRAME:
            raise WireError(f"a frame of {length} bytes")
        return kind, length

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += self._read(size - len(data))
        return data

    def _read(self, size: int) -> bytes:
        data = os.read(self._in, size)
        if not data:
            raise BrokenOff("the engine has gone")
        return data

    # Out

    def say(self, **message: Any) -> None:
        """Send a message, after the data before it. Raises BrokenOff."""
        self.flush()
        self._write(encode_message(message))

    def write(self, data: bytes) -> None:
        """Send data soon. Raises BrokenOff."""
        self._waiting += data
        if len(self._waiting) >= CHUNK:
            self.flush()

    def flush(self) -> None:
        """Send what waits. Raises BrokenOff."""
        view = memoryview(bytes(self._waiting))
        self._waiting.clear()
        while view:
            piece, view = view[:MAX_FRAME], view[MAX_FRAME:]
            self._write(HEADER.pack(DATA, len(piece)))
            self._write(piece)

    def send(self, parts: Parts) -> None:
        """Send an archive, and its end. Raises BrokenOff, and what making the parts raises."""
        for part in parts:
            if isinstance(part, Piece):
                self.send_file(*part)
            else:
                self.write(part)
        self.write(TRAILER)
        self.flush()

    def send_file(self, fd: int, at: int, size: int) -> None:
        """Send `size` bytes of a file from `at` on; zeros where it has become shorter meanwhile. Raises BrokenOff."""
        if size <= CHUNK // 4:
            data = os.pread(fd, size, at)
            self.write(data + bytes(size - len(data)))
            return
        self.flush()
        while size:
            length = min(size, MAX_FRAME)
            self._write(HEADER.pack(DATA, length))
            self._send(fd, at, length)
            at, size = at + length, size - length

    def _send(self, fd: int, at: int, length: int) -> None:
        while length:
            try:
                done = os.sendfile(self._out, fd, at, length)
            except (BrokenPipeError, ConnectionResetError):
                raise BrokenOff("the engine has gone") from None
            except OSError as exc:
                if exc.errno != errno.EINVAL:
                    raise
                done = 0  # a file system without it
                data = os.pread(fd, min(length, CHUNK), at)
                self._write(data)
                at, length = at + len(data), length - len(data)
                if data:
                    continue
            if not done:
                self._write(bytes(length))
                return
            at, length = at + done, length - done

    def _write(self, data: bytes | memoryview) -> None:
        if self._gone():
            raise BrokenOff("the engine has given up")
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._out, view) :]
        except (BrokenPipeError, ConnectionResetError):
            raise BrokenOff("the engine has gone") from None

    def _gone(self) -> bool:
        """The other side has let go of the stream, although it is still to get something."""
        return bool(self._poll.poll(0))
