"""An attached client: a connection that the daemon handed over, served by the keeper from then on.

Output goes out raw or in Docker's frames (`[stream, 0, 0, 0, length as 4 bytes big endian]`, then the data); what the client
sends is the program's stdin. What the connection does not take at once is queued, and the session above holds the program
back while a queue is longer than HIGH, so that nothing is ever lost for a client that still reads.

A connection has two directions that end one by one: a client that shut down its writing side (half-close) still gets output; one
that no longer reads may still have input on the way.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from typing import Protocol

from bothy.keeper.detach import Scanner, parse
from bothy.keeper.loop import ERR, HUP, IN, OUT, Loop
from bothy.keeper.model import Client

HIGH = 256 * 1024
LOW = 64 * 1024
_PIECE = 32 * 1024
_HEADER = struct.Struct(">BxxxL")


class Owner(Protocol):
    """The session, as its clients see it."""

    def take_input(self, data: bytes) -> bool:
        """Pass on stdin. False: do not read more until `Attachment.allow_input`."""

    def input_ended(self, client: Attachment) -> None:
        """This client will send nothing more."""

    def detached(self, client: Attachment) -> None:
        """This client typed its detach keys."""

    def relieved(self, client: Attachment) -> None:
        """This client's queue is short again."""

    def left(self, client: Attachment) -> None:
        """This client's connection is closed."""


class Attachment:
    """One client. Owns the connection. `takes_input`: what it sends goes to the program (else it is not read at all).

    `first`: it came with the start of the program, which it may hold back as long as it lives, as a shell's pipe would.
    """

    def __init__(self, loop: Loop, owner: Owner, fd: int, client: Client, *, takes_input: bool, tty: bool, first: bool) -> None:
        self.first = first
        self.sent = 0
        self.queued = 0
        self._loop = loop
        self._owner = owner
        self._initial = client.initial.encode("latin-1")
        self._scanner = Scanner(parse(client.detach_keys) if tty else b"")
        self._sock: socket.socket | None = socket.socket(fileno=fd)
        self._sock.setblocking(False)
        self._mux = client.framing == "mux"
        self._wanted = frozenset(which for which, on in ((1, client.stdout), (2, client.stderr)) if on)
        self._queue: deque[bytes] = deque()
        self._reads = takes_input
        self._may_read = False
        self._writes = True
        self._finishing = False
        self._watch()

    def feed(self, which: int, data: bytes) -> None:
        """Output for this client, if it asked for that stream."""
        if which not in self._wanted or not self._writes:
            return
        if self._mux:
            self._queue.append(_HEADER.pack(which, len(data)))
            self.queued += _HEADER.size
        self._queue.append(data)
        self.queued += len(data)
        self._flush()

    def allow_input(self) -> None:
        """Read what the client sends (the program can take it)."""
        if not self._reads or self._may_read:
            return
        self._may_read = True
        if self._initial:
            data, self._initial = self._initial, b""
            self._typed(data)
        self._watch()

    def deny_input(self) -> None:
        """Read nothing for now (the program takes no input)."""
        self._may_read = False
        self._watch()

    def finish(self) -> None:
        """No more output: flush what is queued, then close."""
        self._finishing = True
        self._reads = False
        self._flush()

    def close(self) -> None:
        """Close at once; what is queued is lost."""
        sock, self._sock = self._sock, None
        if sock is None:
            return
        self._loop.forget(sock.fileno())
        self._queue.clear()
        self.queued = 0
        _close_gently(sock)
        self._owner.left(self)

    def release(self) -> None:
        """Let go of the connection as it is: who else holds it has something to say there."""
        sock, self._sock = self._sock, None
        if sock is not None:
            self._loop.forget(sock.fileno())
            sock.close()
            self._owner.left(self)

    def _event(self, events: int) -> None:
        if events & OUT:
            self._flush()
        if self._sock is not None and self._reads and self._may_read and events & (IN | HUP | ERR):
            self._read()
        elif self._sock is not None and events & (HUP | ERR):
            self._stop_writing()

    def _read(self) -> None:
        assert self._sock is not None
        try:
            data = self._sock.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._typed(data)
        else:
            self._reads = False
            self._owner.input_ended(self)
        self._watch()

    def _typed(self, data: bytes) -> None:
        data, left = self._scanner.scan(data)
        if data and not self._owner.take_input(data):
            self._may_read = False
        if left:
            self._owner.detached(self)
            self.finish()

    def _flush(self) -> None:
        if self._sock is None:
            return
        before = self.queued
        try:
            while self._queue:
                data = self._queue.popleft()
                sent = 0
                try:
                    sent = self._sock.send(data, socket.MSG_NOSIGNAL)
                finally:
                    if sent < len(data):
                        self._queue.appendleft(data[sent:])
                    self.sent += sent
                    self.queued -= sent
        except BlockingIOError:
            pass
        except OSError:
            self._stop_writing()
        if self._finishing and not self._queue:
            self.close()
            return
        self._watch()
        if before > LOW >= self.queued:
            self._owner.relieved(self)

    def _stop_writing(self) -> None:
        """The client takes no more output: it is gone, or has input on the way at most."""
        self._writes = False
        self._queue.clear()
        self.queued = 0
        if self._reads and not self._finishing:
            self._owner.relieved(self)
            self._watch()
        else:
            self.close()

    def _watch(self) -> None:
        if self._sock is None:
            return
        events = (IN if self._reads and self._may_read else 0) | (OUT if self._queue else 0)
        # A client whose input has to wait would, once it hung up, tell so again and again: look at it when input goes on.
        if not events and self._reads:
            self._loop.forget(self._sock.fileno())
        else:
            self._loop.watch(self._sock.fileno(), events, self._event)


def _close_gently(sock: socket.socket) -> None:
    """Close so that the client sees an end, not a reset: the kernel resets a connection that has unread input when closed."""
    try:
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(_PIECE):
            pass
    except OSError:
        pass
    sock.close()
