"""The keeper's event loop: epoll, a few timers, the end of child processes. One thread, no hidden state, nothing done when idle.

Callbacks run one after another; what they raise ends the loop (a keeper with a bug must not linger), they handle what they expect.
"""

from __future__ import annotations

import heapq
import os
import select
import signal
import time
from collections.abc import Callable
from types import FrameType

IN, OUT, HUP, ERR, PRI = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP, select.EPOLLERR, select.EPOLLPRI
Callback = Callable[[int], object]


class Timer:
    """A call that is due at a time; `cancel` makes it never happen."""

    __slots__ = ("call", "due")

    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due = due
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None

    def __lt__(self, other: Timer) -> bool:
        return self.due < other.due


class Loop:
    """File descriptors and what to call when the kernel says something about them.

    `watch(fd, events, callback)`: the callback gets the events. HUP and ERR are told whether asked for or not; an fd whose news
    are not wanted for now has to be forgotten, not watched for nothing.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._timers: list[Timer] = []
        self._children: dict[int, Callable[[int], None]] = {}
        self._signals: dict[int, Callable[[], None]] = {}
        self._wake: tuple[int, int] | None = None
        self.strangers = 0
        self._running = True

    def watch(self, fd: int, events: int, callback: Callback) -> None:
        """Call back on events of an fd; watching it again changes the events and the callback."""
        if fd in self._callbacks:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def forget(self, fd: int) -> None:
        """No more news of an fd; to be called before it is closed. Nothing if it is not watched."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call once after that time; 0 is the next turn."""
        timer = Timer(time.monotonic() + seconds, call)
        heapq.heappush(self._timers, timer)
        return timer

    def on_signal(self, number: int, call: Callable[[], None]) -> None:
        """Call when a signal comes that has a handler of Python's (which may do nothing). `reap` must have been called."""
        self._signals[number] = call

    def child(self, pid: int, call: Callable[[int], None]) -> None:
        """Call with the wait status (see waitpid(2)) when a child of this process has ended.

        To be called in the turn in which the child was made. From the first call on the loop reaps every child of the process,
        also the orphans that it was given as a subreaper. Children must not be waited for elsewhere but in the turn that made them.
        While `strangers` is not 0, only those are reaped that the loop was told of.
        """
        if self._wake is None:
            self.reap()
            self.collect_later()  # the child may have ended before there was a handler for its signal
        self._children[pid] = call

    def reap(self, wake: tuple[int, int] | None = None) -> None:
        """Begin to reap children (see `child`) and to tell of signals. `wake`: a non-blocking pipe that is so used already."""
        self._wake = wake or os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        read, write = self._wake
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        if signal.getsignal(signal.SIGCHLD) is not nothing:
            signal.signal(signal.SIGCHLD, nothing)
        self.watch(read, IN, self._reap)

    def collect_later(self) -> None:
        """Look for children that have ended, in the next turn."""
        self.later(0, self._collect)

    def _reap(self, _: int) -> None:
        assert self._wake is not None
        try:
            numbers = os.read(self._wake[0], 4096)
        except BlockingIOError:
            return
        for number, call in self._signals.items():
            if number in numbers:
                call()
        self._collect()

    def _collect(self) -> None:
        if self.strangers:
            self._collect_known()
            return
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            call = self._children.pop(pid, None)
            if call is not None:
                call(status)

    def _collect_known(self) -> None:
        for pid in tuple(self._children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._children.pop(pid)(status)

    def turn(self) -> None:
        """Wait for the next event or timer and do what it asks for."""
        for fd, events in self._epoll.poll(self._patience()):
            # A callback may have forgotten an fd whose event is in the same list.
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback(events)
        self._run_timers()

    def run(self) -> None:
        """Turn until `stop`; may be called again then."""
        while self._running:
            self.turn()
        self._running = True

    def stop(self) -> None:
        self._running = False

    def close(self) -> None:
        """Let go of the loop's own descriptors."""
        if self._wake is not None:
            signal.set_wakeup_fd(-1)
            os.close(self._wake[0])
            os.close(self._wake[1])
            self._wake = None
        self._epoll.close()

    def _patience(self) -> float | None:
        while self._timers and self._timers[0].call is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0].due - time.monotonic()) if self._timers else None

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0].due <= now:
            call = heapq.heappop(self._timers).call
            if call is not None:
                call()


def nothing(_signal: int, _frame: FrameType | None) -> None:
    """A handler: the byte in the wakeup pipe is what matters. Unlike SIG_IGN it is not inherited by programs."""
