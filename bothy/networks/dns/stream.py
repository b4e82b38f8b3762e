"""One client's TCP connection: queries with their length before them, as many as it likes, in bounds. Source: RFC 7766."""

from __future__ import annotations

from collections.abc import Callable

from bothy.networks.dns.loop import IN, OUT, Loop, Socket, Timer

IDLE = 10.0
MAX_QUERY, MAX_WAITING, MAX_UNSENT = 4096, 16, 256 * 1024
Reply = Callable[[bytes | None], None]


class Conversation:
    """`ask(query, reply)` has one query answered, by one call of `reply`, now or later; None ends the connection.

    `gone` is called once, when it is over. A client that neither asks nor waits has `IDLE` seconds.
    """

    def __init__(self, loop: Loop, sock: Socket, ask: Callable[[bytes, Reply], None], gone: Callable[[Conversation], None]) -> None:
        self._loop, self._sock, self._ask, self._gone = loop, sock, ask, gone
        self._read = bytearray()
        self._unsent = bytearray()
        self._waiting = 0
        self._at_end = self._closed = False
        self._timer: Timer | None = None
        self._arm()
        self._listen()

    def close(self) -> None:
        """End it; what is still waited for is thrown away."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._loop.unwatch(self._sock.fileno())
        self._sock.close()
        self._gone(self)

    def _ready(self, events: int) -> None:
        if events & OUT:
            self._flush()
        elif events & IN:
            self._receive()
        else:
            self.close()

    def _receive(self) -> None:
        try:
            data = self._sock.recv(MAX_QUERY)
        except BlockingIOError:
            return
        except OSError:
            data = b""
            self._waiting = 0
        self._at_end = not data
        self._read += data
        self._work()

    def _work(self) -> None:
        """Have what is whole answered, while there is room for answers."""
        while not self._closed and self._waiting < MAX_WAITING and len(self._read) >= 2:
            size = int.from_bytes(self._read[:2], "big")
            if size > MAX_QUERY:
                self.close()
                return
            if len(self._read) < 2 + size:
                break
            query = bytes(self._read[2 : 2 + size])
            del self._read[: 2 + size]
            self._waiting += 1
            self._arm()
            self._ask(query, self._reply)
        if self._at_end and not self._waiting and not self._unsent:
            self.close()
        self._listen()

    def _reply(self, answer: bytes | None) -> None:
        if self._closed:
            return
        if answer is None or len(self._unsent) > MAX_UNSENT:
            self.close()
            return
        self._waiting -= 1
        self._unsent += len(answer).to_bytes(2, "big") + answer
        self._flush()

    def _flush(self) -> None:
        try:
            del self._unsent[: self._sock.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._at_end and not self._waiting and not self._unsent:
            self.close()
        self._listen()

    def _listen(self) -> None:
        """Wait for what can be dealt with now."""
        if self._closed:
            return
        mask = OUT if self._unsent else 0
        if not self._at_end and self._waiting < MAX_WAITING:
            mask |= IN
        self._loop.watch(self._sock.fileno(), mask, self._ready)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.later(IDLE, self.close)
