"""Progress of what takes long: JSON lines of the engine's, told on stderr once more than a second has gone by.

On a terminal one line is rewritten, elsewhere each new status is a line. Errors among the lines are raised.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found, unused-ignore]
import sys

from bothy.cli.errors import Failure
from bothy.cli.terminal import is_terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

QUIET_FOR = 1.0  # seconds


class Teller:
    """Holds its tongue for a second, then says what is going on now and from then on whatever is new."""

    def __init__(self, *, patience: float = QUIET_FOR) -> None:
        self._is_live = is_terminal(2)
        self._is_late = patience <= 0
        self._patience = patience
        self._status = ""
        self._shown = ""
        self._former: Any = None

    def __enter__(self) -> Teller:
        if not self._is_late:
            self._former = _signal.signal(_signal.SIGALRM, self._on_alarm)
            _signal.setitimer(_signal.ITIMER_REAL, self._patience)
        return self

    def __exit__(self, *_: object) -> None:
        if self._former is not None:
            _signal.setitimer(_signal.ITIMER_REAL, 0)
            _signal.signal(_signal.SIGALRM, self._former)
        if self._is_live and self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    @property
    def is_live(self) -> bool:
        """Whether it tells on a terminal, where a line is rewritten."""
        return self._is_live

    def tell(self, status: str) -> None:
        """What is going on now."""
        self._status = status
        if self._is_late and status and status != self._shown:
            self._show()

    def _on_alarm(self, number: int, frame: object) -> None:
        self._is_late = True
        if self._status:
            self._show()

    def _show(self) -> None:
        self._shown = self._status
        sys.stderr.write(f"\r\x1b[Kbothy: {self._status[:200]}" if self._is_live else f"bothy: {self._status}\n")
        sys.stderr.flush()


def follow(lines: Iterable[dict[str, Any]], *, quiet: bool = False) -> dict[str, Any]:
    """Tell what the lines tell; the last of them. Nothing is told in the first second, and nothing at all if `quiet`.

    A line has `status` (ours; Docker's with `id` and `progress`), `stream` (Docker's), or `error` (ours with `message` and `hint`),
    which is raised as Failure.
    """
    line: dict[str, Any] = {}
    with Teller() as teller:
        for line in checked(lines):
            if not quiet and (status := text_of(line)):
                teller.tell(status)
    return line


def checked(lines: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The lines up to one that tells an error, which is raised as Failure."""
    for line in lines:
        if error := line.get("error"):
            raise Failure(str(line.get("message") or error), hint=str(line.get("hint") or ""))
        yield line


def text_of(line: dict[str, Any]) -> str:
    """What a line of progress says, as one line."""
    words = [str(line.get("id") or ""), str(line.get("status") or line.get("stream") or ""), str(line.get("progress") or "")]
    return " ".join(word.strip() for word in words if word.strip())
