"""A process of which the keeper holds the pipes or the terminal: output is read as it comes, input written as it fits.

When the process has ended, what is still in its pipes belongs to it and is read at once, also past a slow client. Something that it
left running may hold the pipes open and have more to say (`exec > >(tee log)`): that has GRACE seconds, as in Docker.
"""

from __future__ import annotations

import os
import termios
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from bothy.keeper.loop import IN, OUT, Loop
from bothy.keeper.workload import STDERR, STDOUT, Session

GRACE = 2.0
_READ = 64 * 1024
_LAST_WORDS = 4 * 1024 * 1024


@dataclass
class Streams:
    """The keeper's ends: owned by who holds this, non-blocking. A terminal is `outputs[STDOUT]` and, dup'ed, `stdin`."""

    stdin: int = -1
    outputs: dict[int, int] = field(default_factory=dict)
    terminal: bool = False

    def close(self) -> None:
        for fd in (self.stdin, *self.outputs.values()):
            if fd >= 0:
                os.close(fd)
        self.stdin = -1
        self.outputs = {}


def pipes(*, stdin: bool) -> tuple[Streams, tuple[int, int, int]]:
    """Three pipes: the keeper's ends and the program's (-1 for a stdin that it shall not have). Raises OSError; nothing is left."""
    made: list[int] = []
    try:
        for _ in range(3 if stdin else 2):
            made += os.pipe2(os.O_CLOEXEC)
    except OSError:
        for fd in made:
            os.close(fd)
        raise
    mine = Streams(made[5] if stdin else -1, {STDOUT: made[0], STDERR: made[2]})
    for fd in (mine.stdin, made[0], made[2]):
        if fd >= 0:
            os.set_blocking(fd, False)
    return mine, (made[4] if stdin else -1, made[1], made[3])


def terminal(master: int) -> Streams:
    """The streams of a terminal's master, which is taken."""
    os.set_blocking(master, False)
    return Streams(os.dup(master), {STDOUT: master}, terminal=True)


class ChildProcess:
    """A `bothy.keeper.workload.Process` over descriptors. Watches itself on the loop; `on_signal` delivers signals."""

    def __init__(
        self,
        loop: Loop,
        session: Session,
        pid: int,
        streams: Streams,
        *,
        warnings: tuple[str, ...] = (),
        on_signal: Callable[[int, int], None] = os.kill,
    ) -> None:
        self.pid = pid
        self.warnings = warnings
        self._loop = loop
        self._session = session
        self._streams = streams
        self._on_signal = on_signal
        self._held = False
        self._status: int | None = None
        self._told = False
        loop.child(pid, self._ended)
        self._watch()

    def write(self, data: bytes) -> int:
        fd = self._streams.stdin
        if fd < 0:
            return len(data)
        try:
            done = os.write(fd, data)
        except BlockingIOError:
            done = 0
        except OSError:
            self._forget_input()
            return len(data)
        if done < len(data):
            self._loop.watch(fd, OUT, self._writable)
        return done

    def close_input(self) -> None:
        if not self._streams.terminal:
            self._forget_input()

    def hold(self, *, held: bool) -> None:
        if held != self._held and self._status is None:
            self._held = held
            self._watch()

    def resize(self, height: int, width: int) -> None:
        if self._streams.terminal and STDOUT in self._streams.outputs:
            termios.tcsetwinsize(self._streams.outputs[STDOUT], (height, width))

    def signal(self, number: int) -> None:
        if self._status is not None:
            raise ProcessLookupError("the program has ended")
        self._on_signal(self.pid, number)

    def _watch(self) -> None:
        for which, fd in self._streams.outputs.items():
            if self._held:
                self._loop.forget(fd)
            else:
                self._loop.watch(fd, IN, partial(self._output, which))

    def _output(self, which: int, _events: int) -> None:
        self._readable(which)

    def _readable(self, which: int) -> int:
        """Read once. The number of bytes; 0 at the end of the stream and where there is nothing now."""
        fd = self._streams.outputs.get(which)
        if fd is None:
            return 0
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""  # EIO: every other side of the terminal is closed
        if data:
            self._session.feed(which, data)
            return len(data)
        del self._streams.outputs[which]
        self._loop.forget(fd)
        os.close(fd)
        self._session.eof(which)
        if self._status is not None and not self._streams.outputs:
            self._tell()
        return 0

    def _writable(self, _events: int) -> None:
        if self._streams.stdin >= 0:
            self._loop.forget(self._streams.stdin)
            self._session.drained()

    def _forget_input(self) -> None:
        fd, self._streams.stdin = self._streams.stdin, -1
        if fd >= 0:
            self._loop.forget(fd)
            os.close(fd)

    def _ended(self, status: int) -> None:
        self._status = status
        self._held = False
        for which in tuple(self._streams.outputs):
            total = 0
            while total < _LAST_WORDS and (count := self._readable(which)):
                total += count
        if self._told:
            return
        if self._streams.outputs:
            self._watch()
            self._loop.later(GRACE, self._tell)
        else:
            self._tell()

    def _tell(self) -> None:
        if self._told or self._status is None:
            return
        self._told = True
        for fd in (self._streams.stdin, *self._streams.outputs.values()):
            if fd >= 0:
                self._loop.forget(fd)
        self._streams.close()
        self._session.exited(exit_code(self._status))


def exit_code(status: int) -> int:
    """A wait status as a shell tells it: the code, or 128 + the signal."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
