"""The QEMU Machine Protocol: a codec without I/O for who has a loop, and a blocking client on top for who has not.

    ◀ {"QMP": …}                          greeting
    ▶ {"execute": "qmp_capabilities"}     ◀ {"return": {}}
    ▶ {"execute": …, "arguments": …}      ◀ {"return": …} or {"error": {"class", "desc"}}, in the order of the commands
                                          ◀ {"event": …, "data": …}, at any time

Commands may be written before the greeting has come: QEMU takes them in order when it is up, so a whole start is one write and no
wait. Source: docs/interop/qmp-spec.txt of QEMU. What QEMU says is checked: it may have been taken over by its guest.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

MAX_LINE = 1024 * 1024


class QmpError(OSError):
    """QEMU refused a command, or says what is not QMP."""


class Answer(NamedTuple):
    """A command's result; `error` is empty if it went well."""

    value: Any
    error: str = ""


class Event(NamedTuple):
    name: str
    data: dict[str, Any]


def command(name: str, arguments: Mapping[str, Any] | None = None) -> bytes:
    """The bytes of a command."""
    return json.dumps({"execute": name, **({"arguments": arguments} if arguments else {})}).encode() + b"\n"


class Parser:
    """Cuts what QEMU says into answers and events; the greeting is swallowed."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[Answer | Event]:
        """What is whole now. Raises QmpError for what is not QMP."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if len(self._buffer) > MAX_LINE:
            raise QmpError(f"a line of QMP is longer than {MAX_LINE} bytes")
        return [said for line in lines if line.strip() for said in _parse(line)]


def _parse(line: bytes) -> list[Answer | Event]:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise QmpError(f"not QMP: {exc!r}") from None
    if not isinstance(said, dict):
        raise QmpError("not QMP: no object")
    if "return" in said:
        return [Answer(said["return"])]
    if "error" in said:
        error = said["error"]
        return [Answer(None, str(error.get("desc", error)) if isinstance(error, dict) else str(error))]
    if "event" in said:
        data = said.get("data")
        return [Event(str(said["event"]), data if isinstance(data, dict) else {})]
    return []


class Client:
    """A blocking connection. It owns the socket."""

    def __init__(self, sock: socket.socket, timeout: float = 30.0) -> None:
        self._socket = sock
        self._timeout = timeout
        self._parser = Parser()
        self._waiting: list[Answer] = []
        self.events: list[Event] = []
        sock.sendall(command("qmp_capabilities"))
        self._answer("qmp_capabilities")

    def __call__(self, name: str, **arguments: Any) -> Any:
        """Run a command and give its result; `_` in argument names is `-`. Raises QmpError, TimeoutError, ConnectionResetError."""
        self._socket.sendall(command(name, {key.replace("_", "-"): value for key, value in arguments.items()}))
        return self._answer(name)

    def pass_fd(self, name: str, fd: int, **arguments: Any) -> Any:
        """Run a command that takes a descriptor (`getfd`): a duplicate of `fd` goes with it."""
        socket.send_fds(self._socket, [command(name, arguments)], [fd])
        return self._answer(name)

    def event(self, *names: str) -> Event:
        """Wait for the next event of one of these names. Raises as a command."""
        deadline = time.monotonic() + self._timeout
        while True:
            for event in self.events:
                if event.name in names:
                    self.events.remove(event)
                    return event
            self._receive(deadline)

    def close(self) -> None:
        self._socket.close()

    def _answer(self, name: str) -> Any:
        deadline = time.monotonic() + self._timeout
        while not self._waiting:
            self._receive(deadline)
        answer = self._waiting.pop(0)
        if answer.error:
            raise QmpError(f"{name}: {answer.error}")
        return answer.value

    def _receive(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("QEMU does not answer")
        self._socket.settimeout(left)
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionResetError("QEMU is gone")
        for said in self._parser.feed(data):
            if isinstance(said, Answer):
                self._waiting.append(said)
            else:
                self.events.append(said)
