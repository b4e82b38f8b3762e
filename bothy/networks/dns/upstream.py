"""Names that are not ours: asked for at the host's resolvers, or at those that a workload was given.

    ask ─▶ server 1 ─(1.5 s)─▶ server 2 ─▶ … each asked twice at most, by a socket and an id of its own every time
            └ the first good answer, from whichever of them, goes back as it came, but for the id

A socket is connected, so that the kernel lets in what comes from the server only; its port is the kernel's choice, at random. How
many questions are under way is bounded, for each network and each workload: who asks without end gets failures, the others go on.
A server that kept silent is asked last for a while. Servers on the host's loopback are served too: this process is on the host.
"""

from __future__ import annotations

import _socket
import os
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

from bothy.networks.dns import message
from bothy.networks.dns.loop import IN, OUT, Loop, Socket, Timer

PORT = 53
PATIENCE, TRIES, GRUDGE = 1.5, 4, 30.0
MAX_ASKS, MAX_OF_ONE = 512, (256, 128)
_MAX_SERVERS = 3
_NEXT = (message.SERVFAIL, message.REFUSED, message.NOTIMP, message.FORMERR)
Reply = Callable[[bytes | None], object]


class Upstream:
    """`resolv_conf` is read again whenever it has changed. `port`: another one, for tests."""

    def __init__(self, loop: Loop, resolv_conf: str, port: int = PORT) -> None:
        self.loop, self.port = loop, port
        self._resolv_conf = resolv_conf
        self._seen: tuple[int, int, int] | None = None
        self._servers: list[str] = []
        self._silent: dict[str, float] = {}
        self._asks: dict[Hashable, _Ask] = {}
        self._of: Counter[Hashable] = Counter()

    def ask(
        self, key: Hashable, parties: Sequence[Hashable], data: bytes, servers: list[str], reply: Reply, *, stream: bool = False
    ) -> bool:
        """Have a question answered: `reply` is called once, with the answer or None for none; perhaps before this returns.

        `key` tells a question that is asked again while it is under way: that is passed over. `parties` are who share in a bound:
        network, workload. False when there is no room for it; then nobody is called.
        """
        if key in self._asks:
            return True
        if len(self._asks) >= MAX_ASKS or any(self._of[one] >= most for one, most in zip(parties, MAX_OF_ONE, strict=True)):
            return False
        self._of.update(parties)

        def done(answer: bytes | None) -> None:
            self._asks.pop(key, None)
            self._of.subtract(parties)
            if len(self._of) > 2 * MAX_ASKS:
                self._of = +self._of
            reply(answer)

        kind = _Stream if stream else _Datagrams
        asking = self._asks[key] = kind(self, self.servers(servers), data, done)
        asking.next()
        return True

    def close(self) -> None:
        """Give up all that is under way: each gets no answer."""
        for asking in list(self._asks.values()):
            asking.finish(None)

    def servers(self, given: list[str]) -> list[str]:
        """Whom to ask, in order: those given, or else the host's; whoever was silent of late comes last."""
        now = time.monotonic()
        return sorted((given or self._host())[:_MAX_SERVERS], key=lambda server: self._silent.get(server, 0.0) > now)

    def was_silent(self, server: str) -> None:
        """Bear it a grudge."""
        if len(self._silent) > MAX_ASKS:
            self._silent.clear()
        self._silent[server] = time.monotonic() + GRUDGE

    def spoke(self, server: str) -> None:
        self._silent.pop(server, None)

    def _host(self) -> list[str]:
        try:
            stat = os.stat(self._resolv_conf)
            seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if seen != self._seen:
                with open(self._resolv_conf, encoding="utf-8", errors="replace") as file:
                    lines = [line.split() for line in file]
                self._servers = [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]
                self._seen = seen
        except OSError:
            self._servers, self._seen = [], None
        return self._servers


class _Ask(ABC):
    """One question under way."""

    def __init__(self, upstream: Upstream, servers: list[str], data: bytes, done: Reply) -> None:
        self.upstream, self.data, self._done = upstream, data, done
        self._left = (servers * 2)[:TRIES]
        self._sockets: list[Socket] = []
        self._timer = Timer(0.0, None)
        self._bad: bytes | None = None
        self._over = False

    def next(self) -> None:
        """Ask the next server; without one, the last bad answer is the answer."""
        self._timer.cancel()
        while self._left:
            server = self._left.pop(0)
            try:
                self.begin(server)
            except (OSError, ValueError):
                continue
            self._timer = self.upstream.loop.later(PATIENCE, lambda: self._silent(server))  # noqa: B023 - the loop ends here
            return
        self.finish(self._bad)

    @abstractmethod
    def begin(self, server: str) -> None:
        """Send the question. Raises OSError, ValueError for a server that is none."""

    def open(self, server: str, kind: int) -> Socket:
        """A socket on its way to a server."""
        address, _, scope = server.partition("%")
        message.pack(address)
        place = (address, self.upstream.port)
        if ":" not in address:
            sock = Socket(_socket.AF_INET, kind | _socket.SOCK_NONBLOCK)
        else:
            sock = Socket(_socket.AF_INET6, kind | _socket.SOCK_NONBLOCK)
            place = (*place, 0, _socket.if_nametoindex(scope) if scope else 0)  # type: ignore[assignment]
        self._sockets.append(sock)
        try:
            sock.connect(place)
        except BlockingIOError:
            pass  # a stream says when it is ready
        return sock

    def take(self, server: str, question: bytes, answer: bytes) -> None:
        """What a server sent. Not an answer to what it was asked: as if it had never come."""
        if self._over or not message.answers(answer, question):
            return
        self.upstream.spoke(server)
        if message.code(answer) in _NEXT and self._left:
            self._bad = answer
            self.next()
        else:
            self.finish(answer)

    def finish(self, answer: bytes | None) -> None:
        if self._over:
            return
        self._over = True
        self._timer.cancel()
        for sock in self._sockets:
            self.upstream.loop.unwatch(sock.fileno())
            sock.close()
        self._done(None if answer is None else self.data[:2] + answer[2:])

    def _silent(self, server: str) -> None:
        self.upstream.was_silent(server)
        self.next()


class _Datagrams(_Ask):
    def begin(self, server: str) -> None:
        sock = self.open(server, _socket.SOCK_DGRAM)
        question = os.urandom(2) + self.data[2:]
        sock.send(question)
        self.upstream.loop.watch(sock.fileno(), IN, lambda _: self._readable(sock, server, question))

    def _readable(self, sock: Socket, server: str, question: bytes) -> None:
        try:
            answer = sock.recv(65535)
        except BlockingIOError:
            return
        except OSError:  # nobody is there, says ICMP
            self.upstream.loop.unwatch(sock.fileno())
            self.next()
            return
        self.take(server, question, answer)


class _Stream(_Ask):
    def begin(self, server: str) -> None:
        sock = self.open(server, _socket.SOCK_STREAM)
        question = os.urandom(2) + self.data[2:]
        rest = bytearray(len(question).to_bytes(2, "big") + question)
        self.upstream.loop.watch(sock.fileno(), OUT, lambda _: self._writable(sock, server, question, rest))

    def _writable(self, sock: Socket, server: str, question: bytes, rest: bytearray) -> None:
        try:
            del rest[: sock.send(rest)]
        except BlockingIOError:
            return
        except OSError:
            self.upstream.loop.unwatch(sock.fileno())
            self.next()
            return
        if not rest:
            self.upstream.loop.watch(sock.fileno(), IN, lambda _: self._readable(sock, server, question, rest))

    def _readable(self, sock: Socket, server: str, question: bytes, answer: bytearray) -> None:
        try:
            data = sock.recv(65537)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        answer += data
        if not data:
            self.upstream.loop.unwatch(sock.fileno())
            self.next()
        elif len(answer) >= 2 + (size := int.from_bytes(answer[:2], "big")) and len(answer) >= 2:
            self.upstream.loop.unwatch(sock.fileno())
            self.take(server, question, bytes(answer[2 : 2 + size]))
