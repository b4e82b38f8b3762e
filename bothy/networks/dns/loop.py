"""The DNS server's event loop: epoll(7), and timers that are seldom due.

All of the server uses the C half of `socket`: it needs nothing of the rest, which is a megabyte.
"""

from __future__ import annotations

import _socket
import heapq
import select
import sys
import time
from collections.abc import Callable

IN, OUT = select.EPOLLIN, select.EPOLLOUT
_AT_ONCE = 64
Socket = _socket.socket
Handler = Callable[[int], object]


class Timer:
    """Something to be done later; `cancel` makes that never."""

    __slots__ = ("callback", "due")

    def __init__(self, due: float, callback: Callable[[], object] | None) -> None:
        self.due, self.callback = due, callback

    def cancel(self) -> None:
        self.callback = None

    def __lt__(self, other: Timer) -> bool:
        return self.due < other.due


class Loop:
    """Calls the handlers of descriptors that are ready, and timers that are due. What one of them raises is told on stderr, and the
    rest goes on. A handler may be called for nothing: all descriptors are non-blocking."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._timers: list[Timer] = []
        self._running = True

    def watch(self, fd: int, mask: int, handler: Handler) -> None:
        """Call `handler` with what happens to `fd`; another call changes mask and handler."""
        if fd in self._handlers:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)
        self._handlers[fd] = handler

    def unwatch(self, fd: int) -> None:
        """To be called before `fd` is closed; one that is not watched is no error."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call back once after so many seconds."""
        timer = Timer(time.monotonic() + seconds, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        """Until `stop`."""
        poll, handlers = self._epoll.poll, self._handlers
        while self._running:
            for fd, events in poll(self._patience(), _AT_ONCE):
                handler = handlers.get(fd)
                if handler is not None:
                    try:
                        handler(events)
                    except Exception:
                        sys.excepthook(*sys.exc_info())

    def _patience(self) -> float:
        """Carry out what is due; the seconds until something else is, -1 for ever, 0 when one of them has stopped the loop."""
        timers = self._timers
        while timers and self._running:
            seconds = timers[0].due - time.monotonic()
            if timers[0].callback is not None and seconds > 0:
                return seconds
            callback = heapq.heappop(timers).callback
            if callback is not None:
                try:
                    callback()
                except Exception:
                    sys.excepthook(*sys.exc_info())
        return -1.0 if self._running else 0.0
