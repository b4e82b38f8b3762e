"""Signals as readable bytes: each one that comes while the context lasts is a byte on `fd`, its number.

The interpreter's C module is used: the `signal` module of the library makes enums of everything, which takes 4 ms to import.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found, unused-ignore]
import os

from bothy.cli.errors import Interrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

HUP, INT, QUIT, USR1, USR2, TERM, WINCH = 1, 2, 3, 10, 12, 15, 28
PROXIED = (HUP, INT, QUIT, USR1, USR2, TERM)
DEADLY = (HUP, INT, QUIT, TERM)


class Watch:
    """Takes over the given signals. On exit the former handlers are back."""

    def __init__(self, numbers: tuple[int, ...]) -> None:
        self._numbers = numbers
        self._former: dict[int, Any] = {}
        self.fd = -1
        self._writer = -1
        self._former_wakeup = -1

    def __enter__(self) -> Watch:
        self.fd, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._former_wakeup = _signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in self._numbers:
            # What a parent told us to ignore (nohup, a shell's background job) stays ignored.
            if _signal.getsignal(number) != _signal.SIG_IGN:
                self._former[number] = _signal.signal(number, _taken)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._former.items():
            _signal.signal(number, handler)
        _signal.set_wakeup_fd(self._former_wakeup)
        os.close(self.fd)
        os.close(self._writer)

    def read(self) -> list[int]:
        """The numbers that came since it was last asked."""
        try:
            return list(os.read(self.fd, 4096))
        except BlockingIOError:
            return []


class Raising:
    """While the context lasts, these signals raise Interrupted where they would have ended the process."""

    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers
        self._former: dict[int, Any] = {}

    def __enter__(self) -> None:
        for number in self._numbers:
            if _signal.getsignal(number) != _signal.SIG_IGN:
                self._former[number] = _signal.signal(number, _raise)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            _signal.signal(number, handler)


def _raise(number: int, frame: object) -> None:
    raise Interrupted(number)


def _taken(number: int, frame: object) -> None:
    """The byte on the pipe is all that is wanted."""
