"""One program of a guest as the core sees it: `bothy.keeper.workload.Process` over frames, both directions held to their windows.

core ── write, close_input, hold … ──▶ GuestProcess ── data, end, credit ──▶ agent
     ◀── feed, drained, exited ───────              ◀── data, credit, exit ─
"""

from __future__ import annotations

from typing import Any, Protocol

from bothy.keeper import workload as wall
from bothy.machines import wire

_GIVE_BACK = wire.WINDOW // 4


class Line(Protocol):
    """The way to the guest."""

    @property
    def crowded(self) -> bool:
        """More waits to be sent than should."""

    def send(self, data: bytes) -> None:
        """Send encoded frames, now or when there is room."""

    def say(self, op: str, **rest: Any) -> None:
        """Send a message that needs no answer."""


class GuestProcess:
    """One program of the guest, as the core sees it."""

    def __init__(self, line: Line, number: int, session: wall.Session) -> None:
        self.pid = 0
        self.warnings: tuple[str, ...] = ()
        self.session = session
        self.number = number
        self.over = False
        self._line = line
        self._held = False
        self._input_credit = wire.WINDOW
        self._input_refused = False
        self._room = {wire.STDOUT: wire.WINDOW, wire.STDERR: wire.WINDOW}

    def write(self, data: bytes) -> int:
        if self.over:
            return len(data)
        total = 0
        while total < len(data) and self._input_credit and not self._line.crowded:
            piece = data[total : total + min(self._input_credit, wire.CHUNK)]
            self._line.send(wire.encode(wire.DATA, wire.stream_of(self.number, wire.STDIN), piece))
            self._input_credit -= len(piece)
            total += len(piece)
        self._input_refused = total < len(data)
        return total

    def close_input(self) -> None:
        if not self.over:
            self._line.send(wire.encode(wire.END, wire.stream_of(self.number, wire.STDIN)))

    def hold(self, *, held: bool) -> None:
        self._held = held
        if not held and not self.over:
            for which in self._room:
                self._give_back(which, 1)

    def resize(self, height: int, width: int) -> None:
        if not self.over:
            self._line.say("resize", process=self.number, height=height, width=width)

    def signal(self, number: int) -> None:
        if self.over:
            raise ProcessLookupError("the program has ended")
        self._line.say("signal", process=self.number, number=int(number))

    # What the guest says.

    def fed(self, which: int, data: bytes) -> None:
        """Output. Raises WireError if it is more than there was room for."""
        if len(data) > self._room.get(which, 0):
            raise wire.WireError("a stream does not keep to its window")
        self._room[which] -= len(data)
        self.session.feed(which, data)
        if not self._held:
            self._give_back(which, _GIVE_BACK)

    def credited(self, amount: int) -> None:
        self._input_credit = min(self._input_credit + amount, wire.WINDOW)
        self.drained()

    def drained(self) -> None:
        """There may be room for input again."""
        if self._input_refused and self._input_credit and not self._line.crowded and not self.over:
            self._input_refused = False
            self.session.drained()

    def ended(self, code: int) -> None:
        if not self.over:
            self.over = True
            self.session.exited(code)

    def _give_back(self, which: int, least: int) -> None:
        amount = wire.WINDOW - self._room[which]
        if amount >= least:
            self._room[which] = wire.WINDOW
            self._line.send(wire.encode_credit(wire.stream_of(self.number, which), amount))
