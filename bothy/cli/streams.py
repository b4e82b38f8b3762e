"""An attached workload: one loop that moves bytes between our stdio and the engine's connection, one thread, no copies kept.

    stdin ──(detach keys)──▶ connection ──(frames, or raw where there is a terminal)──▶ stdout, stderr
    signals ──▶ on_signal        `also`: another answer that is awaited meanwhile (the exit code)

The loop never blocks on the connection while the connection may be waiting for us: input is read only when what was read before
is sent. It ends when the connection has ended and `also` has come, or when the detach keys were typed.
"""

from __future__ import annotations

import os
import select

from bothy.api.frames import STDERR, SYSTEM, Decoder, FrameError
from bothy.cli.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from bothy.api.client import Hijacked
    from bothy.cli.signals import Watch
    from bothy.cli.terminal import DetachKeys

    class Awaited(Protocol):
        """An answer that comes some time: an fd to poll, -1 when it is there; `arrived` is called when there is some of it."""

        def fileno(self) -> int: ...
        def arrived(self) -> None: ...


CHUNK = 128 * 1024
SHUT_WR = 1
IN, OUT, GONE = select.POLLIN, select.POLLOUT, select.POLLERR | select.POLLHUP | select.POLLNVAL


class Attachment:
    """`keys` is set where our stdin is a terminal in raw mode; `stdin` says whether our stdin is sent at all.

    `closes`: the end of our input is the end of the program's. Where it is not, the engine would end the session with the input.
    """

    def __init__(
        self,
        taken: Hijacked,
        *,
        stdin: bool,
        tty: bool,
        keys: DetachKeys | None,
        signals: Watch,
        on_signal: Callable[[int], None],
        also: Awaited | None = None,
        closes: bool = True,
    ) -> None:
        self._closes = closes
        self._sock = taken.sock
        self._sock.setblocking(False)
        self._link = taken.sock.fileno()
        self._decoder = Decoder() if taken.framed and not tty else None
        self._keys = keys
        self._signals = signals
        self._on_signal = on_signal
        self._also = also
        self._awaited = also.fileno() if also is not None else -1
        self._has_input = stdin
        self._unsent = b""
        self._is_linked = True
        self._poll = select.poll()
        self._poll.register(self._link, IN)
        self._poll.register(signals.fd, IN)
        if self._awaited >= 0:
            self._poll.register(self._awaited, IN)
        self._listens = False
        self._listen(wanted=stdin)
        if taken.leftover:
            self._show(taken.leftover)

    def run(self) -> bool:
        """Move bytes until the end. True if the detach keys were typed, and then the workload goes on without us.

        Raises BrokenPipeError where our stdout is gone. The connection is closed in any case.
        """
        try:
            while self._is_linked or self._awaited >= 0:
                for fd, event in self._poll.poll():
                    if fd == self._link:
                        self._on_link(event)
                    elif fd == 0:
                        if self._listens and self._on_input():
                            return True
                    elif fd == self._signals.fd:
                        for number in self._signals.read():
                            self._on_signal(number)
                    elif fd == self._awaited:
                        self._on_awaited()
        finally:
            self._sock.close()
        return False

    def _on_awaited(self) -> None:
        assert self._also is not None
        self._poll.unregister(self._awaited)
        self._also.arrived()
        self._awaited = self._also.fileno()
        if self._awaited >= 0:
            self._poll.register(self._awaited, IN)

    def _on_link(self, event: int) -> None:
        if event & OUT:
            self._send()
        if not event & (IN | GONE):
            return
        try:
            data = self._sock.recv(CHUNK)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if data:
            self._show(data)
        else:
            self._is_linked = False
            self._poll.unregister(self._link)
            self._stop_input()

    def _show(self, data: bytes) -> None:
        if self._decoder is None:
            write(1, data)
            return
        try:
            parts = self._decoder.feed(data)
        except FrameError as exc:
            raise Failure(f"the engine's stream is broken: {exc}", code=125) from None
        for stream, part in parts:
            write(2 if stream in (STDERR, SYSTEM) else 1, part)

    def _on_input(self) -> bool:
        try:
            data = os.read(0, CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""  # not open, or the terminal has hung up
        if not data:
            self._stop_input()
            if self._closes:
                self._half_close()
            return False
        detached = False
        if self._keys is not None:
            data, detached = self._keys.feed(data)
        self._unsent = data
        self._send()
        return detached

    def _send(self) -> None:
        """Send what is left of the input; while some is, no more is read."""
        if self._unsent:
            try:
                sent = self._sock.send(self._unsent)
            except BlockingIOError:
                sent = 0
            except (BrokenPipeError, ConnectionResetError):
                self._unsent = b""  # the program reads no more; what it still says comes before the end of the connection
                self._stop_input()
                return
            self._unsent = self._unsent[sent:]
        self._poll.modify(self._link, IN | OUT if self._unsent else IN)
        self._listen(wanted=self._has_input and not self._unsent)

    def _listen(self, *, wanted: bool) -> None:
        """Look at our stdin or not. One that nothing is wanted of is taken out: it would still tell that its writer is gone."""
        if wanted and not self._listens:
            self._poll.register(0, IN)
        elif self._listens and not wanted:
            self._poll.unregister(0)
        self._listens = wanted

    def _stop_input(self) -> None:
        self._has_input = False
        self._listen(wanted=False)

    def _half_close(self) -> None:
        try:
            self._sock.shutdown(SHUT_WR)
        except OSError:
            pass  # the other side was quicker


def write(fd: int, data: bytes) -> None:
    """Write all of it, waiting where the fd is one that others made non-blocking. Raises BrokenPipeError."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(fd, OUT)
            poll.poll()
