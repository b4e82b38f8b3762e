"""A machine that is paused: its programs frozen by its guest, itself stopped; and visits, for which it goes on for a moment.

pause    freeze ─▶ agent (a guest that does not answer in time is stopped all the same) ─ stop ─▶ QEMU
visit    cont ─▶ QEMU, the visit, stop ─▶ QEMU                 (when there is no other visit)
resume   cont ─▶ QEMU, thaw ─▶ agent
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from bothy.errors import StageError
from bothy.keeper import workload as wall
from bothy.keeper.loop import Loop

PATIENCE = 2.0


class Machine(Protocol):
    """What it needs of the machine."""

    def ask(self, message: dict[str, Any], reply: wall.Done, *, limit: float = 0) -> None:
        """Have the agent do something."""

    def order(self, name: str, done: wall.Done, **arguments: Any) -> None:
        """A command for QEMU. Raises StageError when it has ended."""

    def tell_time(self) -> None:
        """Tell the guest what time it is."""


class Stillness:
    """What is paused, and how many visits there are."""

    def __init__(self, loop: Loop, machine: Machine) -> None:
        self._loop = loop
        self._machine = machine
        self._paused = False
        self._frozen = False
        self._visits = 0

    def pause(self, done: wall.Done) -> None:
        """Have everything stand still. Raises StageError when the machine has ended."""
        waiting = True

        def answered(answer: dict[str, Any] | BaseException) -> None:
            nonlocal waiting
            if waiting:
                waiting = False
                timer.cancel()
                self._frozen = not isinstance(answer, BaseException)
                self._stop(done)

        timer = self._loop.later(PATIENCE, lambda: answered(StageError("freeze", "the guest does not answer")))
        self._machine.ask({"op": "freeze", "frozen": True}, answered)

    def _stop(self, done: wall.Done) -> None:
        def stopped(answer: dict[str, Any] | BaseException) -> None:
            self._paused = self._paused or not isinstance(answer, BaseException)
            done(answer)

        self._try(stopped, lambda: self._machine.order("stop", stopped))

    def resume(self, done: wall.Done) -> None:
        """Have everything go on. Raises StageError when the machine has ended."""
        self._machine.order("cont", done)
        self._machine.tell_time()
        self._machine.ask({"op": "freeze", "frozen": False}, _ignore)
        self._paused = self._frozen = False

    def enter(self, go: Callable[[BaseException | None], None]) -> None:
        """A visit wants the guest to run: `go` is called when it does, or with why it will not."""
        if not self._paused:
            self._visits += 1
            go(None)
            return
        if not self._frozen:
            go(StageError("paused", "the machine is paused, and its guest could not freeze its programs"))
            return
        self._visits += 1
        if self._visits > 1:
            go(None)
            return

        def running(answer: dict[str, Any] | BaseException) -> None:
            self._machine.tell_time()
            go(answer if isinstance(answer, BaseException) else None)

        self._try(running, lambda: self._machine.order("cont", running))

    def leave(self) -> None:
        """A visit is over."""
        self._visits -= 1
        if self._paused and not self._visits:
            self._try(_ignore, lambda: self._machine.order("stop", _ignore))

    def _try(self, done: wall.Done, work: Callable[[], None]) -> None:
        try:
            work()
        except StageError as exc:
            done(exc)


def _ignore(_: dict[str, Any] | BaseException) -> None:
    """The end of the machine is told elsewhere."""
