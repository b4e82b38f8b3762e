"""QEMU's monitor, of a machine that runs: orders to QEMU, its answers in the same order, and what it tells by itself."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from bothy.errors import StageError
from bothy.keeper import workload as wall
from bothy.keeper.loop import IN, Loop
from bothy.machines import qmp

_READ = 256 * 1024

OnEvent = Callable[[qmp.Event], None]


class Monitor:
    """`born` is called with why an order was refused that QEMU had at birth (see `bothy.machines.launch`); there are `orders` of
    them. The socket is not this object's."""

    def __init__(self, loop: Loop, sock: socket.socket, orders: int, born: Callable[[str], None], on_event: OnEvent) -> None:
        self._loop = loop
        self._socket = sock
        self._on_event = on_event
        self._parser = qmp.Parser()
        self._waiting: list[Callable[[qmp.Answer], None]] = [lambda answer: born(answer.error) if answer.error else None] * orders
        self.nonsense = b""
        loop.watch(sock.fileno(), IN, self._readable)

    def order(self, name: str, done: wall.Done, **arguments: Any) -> None:
        """Have QEMU do something."""

        def answered(answer: qmp.Answer) -> None:
            done(StageError("machine", f"{name}: {answer.error}") if answer.error else {})

        self._waiting.append(answered)
        self._socket.sendall(qmp.command(name, arguments))

    def _readable(self, _events: int) -> None:
        try:
            data = self._socket.recv(_READ)
            said = self._parser.feed(data)
        except BlockingIOError:
            return
        except OSError as exc:
            data, said = b"", []
            self.nonsense = str(exc).encode() if isinstance(exc, qmp.QmpError) else b""
        if not data:
            self._loop.forget(self._socket.fileno())
            return
        for one in said:
            if isinstance(one, qmp.Event):
                self._on_event(one)
            elif self._waiting:
                self._waiting.pop(0)(one)
