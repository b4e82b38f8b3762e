"""The keeper's ear for daemons: the socket from its birth, and `control.sock` for those that come later.

Several daemons may be connected at a time (an old one that dies, a new one that reconciles); each gets its own answers, all get the
events. A daemon that does not read is no reason to wait: what it does not take is queued up to a bound, then it is cut off.
"""

from __future__ import annotations

import os
import select
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from bothy.errors import failure_of, is_foreseen
from bothy.keeper.exits import BEGUN
from bothy.keeper.loop import ERR, HUP, IN, OUT, Loop
from bothy.keeper.model import SPEC
from bothy.linux import channel

NAME = "control.sock"
_QUEUE = 1000


def told(exc: BaseException, stage: str) -> dict[str, str | int]:
    """A failure as it is told to the daemon. The traceback of a bug is written to stderr, which is the daemon's log."""
    if not is_foreseen(exc):
        traceback.print_exception(exc)
    return failure_of(exc, stage)


class Request:
    """One request. It is answered once, by `ok` or `fail`; descriptors that nobody took are closed then."""

    def __init__(self, connection: Connection, message: channel.Message, fds: list[int]) -> None:
        self.op = str(message.get("op", ""))
        self.message = message
        self.fds = fds
        self._connection = connection
        self._answered = False

    @property
    def is_abandoned(self) -> bool:
        """Who asked this is gone."""
        return hung_up(self._connection.fileno())

    def take(self) -> int:
        """The next descriptor that came with the request, owned by the caller. Raises ValueError when there is none."""
        if not self.fds:
            raise ValueError(f"{self.op}: a descriptor is missing")
        return self.fds.pop(0)

    def ok(self, **fields: Any) -> None:
        """Answer with an object."""
        self._answer({"ok": fields})

    def fail(self, exc: BaseException) -> None:
        """Answer with a failure."""
        self._answer({"error": told(exc, self.op)})

    def _answer(self, message: channel.Message) -> None:
        if self._answered:
            return
        self._answered = True
        channel.close_all(self.fds)
        self.fds = []
        self._connection.send({"seq": self.message.get("seq"), **message})


class Connection:
    """One daemon."""

    def __init__(
        self, loop: Loop, sock: channel.Socket, handle: Callable[[Request], None], gone: Callable[[Connection], None]
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._handle = handle
        self._gone = gone
        self._queue: deque[bytes] = deque()
        self._open = True
        sock.setblocking(False)
        loop.watch(sock.fileno(), IN, self._event)

    def send(self, message: channel.Message) -> None:
        """Send now, or as soon as the daemon reads. Nothing happens when it is gone."""
        if not self._open:
            return
        self._queue.append(channel.encode(message))
        self._flush()
        if len(self._queue) > _QUEUE:
            self.close()

    def fileno(self) -> int:
        return self._sock.fileno()

    def stop(self) -> None:
        """Neither read nor write any more, without hanging up."""
        if self._open:
            self._open = False
            self._loop.forget(self._sock.fileno())

    def close(self) -> None:
        """Let go; what is queued is lost."""
        if self._open:
            self._open = False
            self._loop.forget(self._sock.fileno())
            self._sock.close()
            self._gone(self)

    def _event(self, events: int) -> None:
        if events & OUT:
            self._flush()
        while self._open and events & (IN | HUP | ERR):
            try:
                message, fds = channel.receive(self._sock)
            except BlockingIOError:
                return
            except OSError:
                self.close()
                return
            if message is None:
                self.close()
                return
            self._handle(Request(self, message, fds))

    def _flush(self) -> None:
        try:
            while self._queue:
                channel.send_encoded(self._sock, self._queue[0])
                self._queue.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self._loop.watch(self._sock.fileno(), IN | (OUT if self._queue else 0), self._event)


def hung_up(fd: int) -> bool:
    """Whether the other side of a connection is gone; what it said last may still be there to be read (poll(2), POLLHUP)."""
    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(0))


class Control:
    """All daemons. `handle` is called for every request, `alone` when the last of them has gone. `listener`: one that there is."""

    def __init__(
        self,
        loop: Loop,
        folder: str,
        connected: Iterable[channel.Socket],
        handle: Callable[[Request], None],
        alone: Callable[[], None],
        listener: channel.Socket | None = None,
    ) -> None:
        self._loop = loop
        self._folder = folder
        self._handle = handle
        self._alone = alone
        self._listener: channel.Socket | None = listener or channel.listen(folder, NAME)
        loop.watch(self._listener.fileno(), IN, self._accept)
        self._connections = [Connection(loop, sock, handle, self._lost) for sock in connected]

    @property
    def connected(self) -> bool:
        return bool(self._connections)

    def hand_over(self) -> list[tuple[str, int]]:
        """Read no more, and give listener and connections, by name, to who does. This object is of no more use."""
        assert self._listener is not None
        for connection in self._connections:
            connection.stop()
        self._loop.forget(self._listener.fileno())
        return [("listener", self._listener.fileno())] + [("control", each.fileno()) for each in self._connections]

    def event(self, name: str, **fields: Any) -> None:
        """Tell every daemon."""
        for connection in tuple(self._connections):
            connection.send({"event": name, **fields})

    def give_up_folder(self) -> None:
        """Take what is ours out of the folder, for good: to be called before any daemon is told that all is over.

        Who knows that removes the folder, and it may belong to the workload's next keeper then.
        """
        if self._listener is None:
            return
        self._loop.forget(self._listener.fileno())
        self._listener.close()
        self._listener = None
        for name in (SPEC, NAME, BEGUN):
            try:
                os.unlink(f"{self._folder}/{name}")
            except OSError:
                pass

    def leave(self) -> None:
        """Give up the folder, tell that all is over, and hang up on all. `alone` is not called."""
        self.give_up_folder()
        self.event("closed")
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.close()

    def _accept(self, _events: int) -> None:
        assert self._listener is not None
        try:
            sock = channel.accept(self._listener)
        except OSError:
            return
        self._connections.append(Connection(self._loop, sock, self._handle, self._lost))

    def _lost(self, connection: Connection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
            if not self._connections:
                self._alone()
