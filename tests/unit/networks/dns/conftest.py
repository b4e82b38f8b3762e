"""A server and the servers that it asks, in one loop on the loopback; the loop runs while somebody waits."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bothy.networks.dns import loop as loops
from bothy.networks.dns.loop import IN, Loop
from bothy.networks.dns.server import Server
from bothy.networks.dns.upstream import Upstream
from bothy.networks.dns.zone import Zone

Answer = Callable[[bytes], bytes | None]
PATIENCE = 5.0
NETWORK = {"id": "n", "name": "net", "gateways": ["127.0.0.1"], "subnets": ["127.0.0.0/8"], "internal": False}


def pair() -> tuple[socket.socket, socket.socket]:
    """Sockets for datagrams and for streams at one port of the loopback, which was free for both."""
    while True:
        datagrams, stream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
        datagrams.bind(("127.0.0.1", 0))
        try:
            stream.bind(datagrams.getsockname())
        except OSError as exc:
            datagrams.close()
            stream.close()
            if exc.errno != errno.EADDRINUSE:
                raise
        else:
            stream.listen()
            return datagrams, stream


class House:
    """All that a server needs. `resolv` is the host's resolv.conf; every upstream server listens at one port."""

    def __init__(self, folder: Path) -> None:
        self.loop = Loop()
        self.zone = Zone()
        self.resolv = folder / "resolv.conf"
        self.resolv.write_text("")
        self.asked: list[tuple[str, bytes]] = []
        self.refreshed = 0
        self.made: list[socket.socket] = []
        probe = self.bound(socket.SOCK_DGRAM, ("127.0.0.1", 0))
        self.port = probe.getsockname()[1]
        self.loop.unwatch(probe.fileno())
        probe.close()
        self.upstream = Upstream(self.loop, str(self.resolv), self.port)
        self.server = Server(self.loop, self.zone, self.upstream, self._refresh)
        self.address = self.serve(NETWORK)

    def _refresh(self) -> None:
        self.refreshed += 1

    def serve(self, network: dict[str, object]) -> tuple[str, int]:
        datagrams, stream = pair()
        self.server.serve(self.zone.put_network(network), [datagrams, stream])
        address: tuple[str, int] = datagrams.getsockname()
        return address

    def bound(self, kind: int, address: tuple[str, int]) -> socket.socket:
        sock = socket.socket(socket.AF_INET, kind)
        self.made.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        return sock

    def client(self, kind: int = socket.SOCK_DGRAM, source: str = "127.0.0.1") -> socket.socket:
        sock = self.bound(kind, (source, 0))
        sock.connect(self.address)
        sock.setblocking(False)
        return sock

    def world(self, address: str, answer: Answer) -> None:
        """A server of the world at an address: what it is asked is noted, what `answer` makes of it is sent, None is silence."""
        sock = self.bound(socket.SOCK_DGRAM, (address, self.port))

        def ready(_: int) -> None:
            data, source = sock.recvfrom(4096)
            self.asked.append((address, data))
            if (reply := answer(data)) is not None:
                sock.sendto(reply, source)

        self.loop.watch(sock.fileno(), IN, ready)

    def until(self, done: Callable[[], bool]) -> None:
        """Run until something is so."""
        end = time.monotonic() + PATIENCE

        def look() -> None:
            if done() or time.monotonic() > end:
                self.loop.stop()
            else:
                self.loop.later(0.002, look)

        self.loop._running = True
        look()
        if self.loop._running:
            self.loop.run()
        assert done()

    def hear(self, sock: socket.socket) -> bytes:
        """What comes to a client; nothing where it is at its end."""
        heard: list[bytes] = []

        def came() -> bool:
            if not heard:
                try:
                    heard.append(sock.recv(65535))
                except BlockingIOError:
                    pass
                except ConnectionResetError:  # ended with words of ours unread
                    heard.append(b"")
            return bool(heard)

        self.until(came)
        return heard[0]

    def close(self) -> None:
        self.upstream.close()
        for network in list(self.server.sockets()):
            self.server.drop(network)
        for sock in self.made:
            sock.close()
        self.loop._epoll.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time runs a hundred times as fast for timers."""
    later = Loop.later
    monkeypatch.setattr(
        loops.Loop, "later", lambda self, seconds, callback: later(self, seconds / (100 if seconds >= 0.5 else 1), callback)
    )
