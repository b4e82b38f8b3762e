"""One end of a SEQPACKET control channel on the event loop: requests with answers, and events (see `bothy.linux.channel`).

    answer = await link.request("start", {...}, fds)     raises what the other side said went wrong
    link.tell({"op": "bye"})                             no answer is expected
    on_event(message, fds)                               called for every message without `seq`
    on_end()                                             called once, when the other side is gone; open requests fail first

Sends that would block are queued with duplicates of their descriptors, in order.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bothy.errors import BothyError, Broken, Invalid, Unavailable, from_failure
from bothy.linux import channel
from bothy.log import logger

_log = logger("engine")
_USERS_STAGES = ("exec", "user", "cwd")


class Link:
    """Owns the socket. Made on the loop's thread; `close` is idempotent and calls no callback."""

    def __init__(
        self, sock: channel.Socket, name: str, on_event: Callable[[dict[str, Any], list[int]], None], on_end: Callable[[], None]
    ) -> None:
        self._sock, self._name = sock, name
        self._on_event, self._on_end = on_event, on_end
        self._loop = asyncio.get_running_loop()
        self._seq = 0
        self._open: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        self.closed = False
        sock.setblocking(False)
        self._loop.add_reader(sock, self._readable)

    def request(self, op: str, fields: Mapping[str, Any] | None = None, fds: Iterable[int] = ()) -> asyncio.Future[dict[str, Any]]:
        """Send a request now; the future has the answer. Its failures: what `from_failure` makes of the other side's, Unavailable
        when the other side goes without answering (whether the request was carried out is then not known)."""
        future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        if self.closed:
            future.set_exception(Unavailable(f"{self._name} is gone"))
            return future
        self._seq += 1
        self._open[self._seq] = future
        try:
            self.tell({"op": op, "seq": self._seq, **(fields or {})}, fds)
        except (OSError, ValueError) as exc:
            self._open.pop(self._seq, None)
            # The end of the stream is handled by the reader: what the other side said before it went is read first.
            kind = Unavailable if isinstance(exc, OSError) else Broken
            future.set_exception(kind(f"{self._name} can not be told to {op}: {exc}"))
        return future

    def tell(self, message: Mapping[str, Any], fds: Iterable[int] = ()) -> None:
        """Send a message. Raises OSError when nobody is there, ValueError when it is too large."""
        data = channel.encode(dict(message))
        if not self._queue:
            try:
                channel.send_encoded(self._sock, data, fds)
            except BlockingIOError:
                self._loop.add_writer(self._sock, self._writable)
            else:
                return
        self._queue.append((data, [os.dup(fd) for fd in fds]))

    def close(self) -> None:
        """Let go of the socket. Requests without an answer fail with Unavailable."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        for _, fds in self._queue:
            channel.close_all(fds)
        self._queue.clear()
        for future in self._open.values():
            if not future.done():
                future.set_exception(Unavailable(f"{self._name} is gone"))
                future.exception()  # whoever awaited it sees it; nobody else has to
        self._open.clear()

    def _writable(self) -> None:
        while self._queue:
            data, fds = self._queue[0]
            try:
                channel.send_encoded(self._sock, data, fds)
            except BlockingIOError:
                return
            except OSError:
                self._ended()
                return
            self._queue.popleft()
            channel.close_all(fds)
        self._loop.remove_writer(self._sock)

    def _readable(self) -> None:
        for _ in range(32):  # then the loop has its turn; the reader is level-triggered
            try:
                message, fds = channel.receive(self._sock)
            except BlockingIOError:
                return
            except channel.ChannelError as exc:
                _log.error("%s: %s", self._name, exc)
                continue
            except OSError:
                message, fds = None, []
            if message is None:
                self._ended()
                return
            self._take(message, fds)
            if self.closed:
                return

    def _take(self, message: dict[str, Any], fds: list[int]) -> None:
        seq = message.get("seq")
        if seq is None:
            self._on_event(message, fds)
            return
        channel.close_all(fds)
        future = self._open.pop(seq, None)
        if future is None or future.done():
            return
        if "error" in message:
            future.set_exception(failure(message["error"]))
        else:
            future.set_result(message.get("ok") or {})

    def _ended(self) -> None:
        if not self.closed:
            self.close()
            self._on_end()


def failure(error: Any) -> BothyError:
    """The exception for an `error` that came over a channel, whatever its shape. What the user's program or flags are to blame for
    is Invalid."""
    if not isinstance(error, dict):
        return Broken(str(error))
    return from_failure(error, Invalid if error.get("stage") in _USERS_STAGES else Broken)
