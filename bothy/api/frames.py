"""Docker's stream frames, free of I/O: how stdout and stderr share one connection where there is no terminal.

    byte 0      1 2 3     4 5 6 7             8 …
    ┌────────┬─────────┬───────────────────┬──────────────────┐
    │ stream │  0 0 0  │ length, big endian│ `length` bytes   │      stream: 0 stdin, 1 stdout, 2 stderr, 3 system error
    └────────┴─────────┴───────────────────┴──────────────────┘

Source: Docker Engine API, "Stream format" of ContainerAttach. Standard library only: the server and the client share it.
"""

from __future__ import annotations

HEADER = 8
STDIN, STDOUT, STDERR, SYSTEM = 0, 1, 2, 3


class FrameError(ValueError):
    """The other end does not speak frames: the stream can not be read any further."""


def encode(stream: int, data: bytes) -> bytes:
    """One frame."""
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


class Decoder:
    """Frames out of bytes that come in pieces of any size.

    A frame is handed on as its bytes arrive, in as many parts as it takes: nothing waits for the end of a long one.
    """

    def __init__(self) -> None:
        self._head = b""
        self._stream = 0
        self._left = 0

    @property
    def is_between(self) -> bool:
        """True where a stream may end: not inside a frame or a header."""
        return not self._head and not self._left

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """(stream, bytes) of what `data` completes. Raises FrameError for a header that is none."""
        parts: list[tuple[int, bytes]] = []
        at = 0
        while at < len(data):
            if self._left:
                part = data[at : at + self._left]
                self._left -= len(part)
                at += len(part)
                parts.append((self._stream, part))
                continue
            take = HEADER - len(self._head)
            self._head += data[at : at + take]
            at += take
            if len(self._head) == HEADER:
                self._start(self._head)
                self._head = b""
        return parts

    def _start(self, head: bytes) -> None:
        if head[0] > SYSTEM or head[1:4] != b"\0\0\0":
            raise FrameError(f"not a stream frame: {head!r}")
        self._stream, self._left = head[0], int.from_bytes(head[4:], "big")
