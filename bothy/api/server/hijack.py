"""The connections of attach and exec: from an HTTP request to a stream that the workload's keeper serves.

    client                          API                        engine                      keeper
      │ POST …/attach  Upgrade: tcp  │                           │                           │
      │ (stdin may follow at once) ─▶│ checks; errors are HTTP   │                           │
      │◀── 101 UPGRADED ─────────────│ takes the fd ────────────▶│ holds it till start ─────▶│ serves it to the end

Without `Upgrade` the answer is `200 OK` and the same stream (docker-java, curl).
Source: Docker Engine API, ContainerAttach, "Hijacking".
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from bothy.api import frames
from bothy.api.server import errors
from bothy.errors import BothyError, Invalid
from bothy.keeper.model import Client

if TYPE_CHECKING:
    from bothy.api.server.call import Call
    from bothy.engine.model import Connection

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
DEFAULT_KEYS = "ctrl-p,ctrl-q"
_CTRL = frozenset("abcdefghijklmnopqrstuvwxyz@[\\]^_")


def stream_type(call: Call, *, tty: bool) -> str:
    """The content type of a stream, which tells frames from plain bytes since API 1.42."""
    return MULTIPLEXED if not tty and call.version >= (1, 42) else RAW


def take(call: Call, *, tty: bool) -> Connection:
    """Answer, and take the connection from the API. Who calls this owns its fd. Raises ConnectionResetError."""
    if call.request.headers.get("Upgrade"):
        head = f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {stream_type(call, tty=tty)}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    else:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {RAW}\r\nConnection: close\r\n\r\n"
    return call.connection.take(head.encode())


def client(connection: Connection, *, tty: bool, stdin: bool, stdout: bool, stderr: bool, keys: str) -> Client:
    """What the keeper is told of a client. Detach keys are for terminals."""
    return Client(
        framing="raw" if tty else "mux",
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        detach_keys=keys if tty else "",
        initial=connection.initial.decode("latin-1"),
    )


def detach_keys(text: str) -> str:
    """A detach sequence (`ctrl-p,ctrl-q`, `a,b`), the default for none. Raises Invalid. Source: moby/term ascii.go."""
    for key in text.split(",") if text else ():
        if not (len(key) == 1 or (len(key) == 6 and key.lower().startswith("ctrl-") and key[5].lower() in _CTRL)):
            raise Invalid(
                f"invalid detach keys ({text}): '{key}' is no key",
                hint="use single characters and ctrl-a to ctrl-z, ctrl-@, ctrl-[ …",
            )
    return text or DEFAULT_KEYS


class Spare:
    """A second handle on a taken connection, to say why nothing came of it. Closed when the block is left."""

    def __init__(self, connection: Connection, *, tty: bool) -> None:
        self._fd = os.dup(connection.fd)
        self._tty = tty

    def __enter__(self) -> Spare:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def tell(self, exc: BothyError) -> None:
        """The failure as the stream's last words, on stderr; where the client takes no more they are dropped.

        What the client has sent is read first: the kernel resets a connection that is closed with unread input.
        """
        words = errors.text_of(exc).encode() + b"\r\n"
        with socket.socket(fileno=os.dup(self._fd)) as sock:
            try:
                sock.setblocking(False)
                sock.send(words if self._tty else frames.encode(frames.STDERR, words))
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass
            except OSError:
                pass
