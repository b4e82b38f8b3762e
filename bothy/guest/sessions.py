"""The agent's side of one program's streams: `bothy.keeper.workload.Session` over frames.

Output waits in a queue while its stream has no credit or the port is crowded, and the program is held then; the exit is told when
all output before it has gone. Input waits while the program does not read; its credit goes back as it is taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from bothy.guest.port import Port
from bothy.keeper.processes import ChildProcess
from bothy.machines import wire


class Session:
    """Number `number` on the wire. `on_exit(session, code)` comes after the last byte of output was sent."""

    def __init__(self, port: Port, number: int, on_exit: Callable[[Session, int], None]) -> None:
        self.number = number
        self.process: ChildProcess | None = None
        self._port = port
        self._on_exit = on_exit
        self._credit = {wire.STDOUT: wire.WINDOW, wire.STDERR: wire.WINDOW}
        self._output: deque[tuple[int, bytes]] = deque()
        self._input = b""
        self._input_ended = False
        self._code: int | None = None

    # What the program does.

    def feed(self, which: int, data: bytes) -> None:
        self._output.append((which, data))
        self.pump()

    def eof(self, which: int) -> None:
        self._output.append((which, b""))
        self.pump()

    def exited(self, code: int) -> None:
        self._code = code
        self.pump()

    def drained(self) -> None:
        self._push_input()

    def pump(self) -> None:
        """Send what may be sent. To be called when there is credit or room again."""
        while self._output and not self._port.crowded:
            which, data = self._output[0]
            stream = wire.stream_of(self.number, which)
            if data:
                piece = data[: min(wire.CHUNK, self._credit[which])]
                if not piece:
                    break
                self._credit[which] -= len(piece)
                self._port.send(wire.encode(wire.DATA, stream, piece))
                if len(piece) < len(data):
                    self._output[0] = (which, data[len(piece) :])
                    continue
            else:
                self._port.send(wire.encode(wire.END, stream))
            self._output.popleft()
        if self._code is not None:
            if not self._output:
                code, self._code = self._code, None
                self._on_exit(self, code)
        elif self.process is not None:
            self.process.hold(held=bool(self._output))

    # What the keeper asks for.

    def credit(self, which: int, amount: int) -> None:
        if which in self._credit:
            self._credit[which] += amount
            self.pump()

    def take(self, data: bytes) -> None:
        """Input for the program; the keeper keeps to the window."""
        self._input += data
        self._push_input()

    def end_input(self) -> None:
        self._input_ended = True
        self._push_input()

    def _push_input(self) -> None:
        if self.process is None:
            return
        while self._input:
            taken = self.process.write(self._input)
            if not taken:
                return
            self._input = self._input[taken:]
            self._port.send(wire.encode_credit(wire.stream_of(self.number, wire.STDIN), taken))
        if self._input_ended:
            self._input_ended = False
            self.process.close_input()
