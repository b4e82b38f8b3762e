"""bothyd's side of the DNS server, with a real server at a network of the loopback device: adopted, replaced, ended."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import dns.message
import pytest

from bothy.engine import resolver as resolvers
from bothy.engine.resolver import Resolver
from bothy.networks.dns import listening, table
from bothy.networks.dns.listening import Listeners
from bothy.networks.dns.table import Endpoint
from bothy.networks.model import Network
from bothy.paths import Paths
from tests.support.settle import reap

NETWORK = Network("n" * 64, "net", "bridge", "", bridge="lo", subnet="127.0.0.0/8", gateway="127.99.0.1")
Scenario = Callable[[], Awaitable[None]]


class Half:
    """A resolver and its sockets: what one bothyd has of it."""

    def __init__(self, paths: Paths) -> None:
        self.paths, self.listeners = paths, Listeners()
        self.resolver = Resolver(paths, self.listeners, "/dev/null")

    async def pid(self, other_than: int = 0) -> int:
        """The server's process, when there is one."""
        for _ in range(2000):
            if self.resolver.pid not in (0, other_than):
                return self.resolver.pid
            await asyncio.sleep(0.005)
        raise AssertionError("no server")

    def query(self) -> socket.socket:
        """A client that has asked for `web`."""
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.bind(("127.99.0.2", 0))
        client.setblocking(False)
        client.connect(("127.99.0.1", self.listeners.ports(NETWORK.id)["127.99.0.1"]))
        client.send(dns.message.make_query("web", "A").to_wire())
        return client

    async def hear(self, client: socket.socket) -> list[str]:
        with client:
            data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 512), 20)
            return [str(record) for rrset in dns.message.from_wire(data).answer for record in rrset]

    async def ask(self) -> list[str]:
        return await self.hear(self.query())


@pytest.fixture
def paths() -> Iterator[Paths]:
    with tempfile.TemporaryDirectory(prefix="bothy-names-", dir="/run") as run:
        found = Paths(Path(run) / "root", Path(run))
        table.tell(found, "w", [Endpoint(NETWORK.id, ["127.99.0.3"], ["web"])])
        yield found
    reap()


@asynccontextmanager
async def half(paths: Paths, *, end: bool, adopt: bool = True) -> AsyncIterator[Half]:
    made = Half(paths)
    if adopt:
        await made.resolver.adopt()
    made.listeners.ensure(NETWORK)
    try:
        yield made
    finally:
        await made.resolver.close(end=end)
        made.listeners.close()


def gone(pid: int) -> bool:
    reap()
    return not os.path.exists(f"/proc/{pid}")


async def until_gone(pid: int) -> None:
    for _ in range(2000):
        if gone(pid):
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"process {pid} lives on")


def play(scenario: Scenario) -> None:
    asyncio.run(scenario())  # type: ignore[arg-type]


def test_it_comes_with_the_first_network_and_goes_with_the_engine(paths: Paths) -> None:
    async def scenario() -> None:
        idle = Half(paths)
        await idle.resolver.adopt()
        assert idle.resolver.pid == 0
        await idle.resolver.close(end=False)
        async with half(paths, end=True) as daemon:
            assert await daemon.ask() == ["127.99.0.3"]
            pid = await daemon.pid()
        await until_gone(pid)
        assert os.listdir(paths.run) == []

    play(scenario)


def test_one_that_dies_is_followed_and_the_query_not_lost(paths: Paths) -> None:
    async def scenario() -> None:
        async with half(paths, end=True) as daemon:
            assert await daemon.ask() == ["127.99.0.3"]
            for _ in range(3):
                pid = await daemon.pid()
                os.kill(pid, signal.SIGKILL)
                assert await daemon.ask() == ["127.99.0.3"]
                assert await daemon.pid(other_than=pid)
                await until_gone(pid)

    play(scenario)


def test_the_next_daemon_adopts_it(paths: Paths) -> None:
    async def scenario() -> None:
        async with half(paths, end=False) as first:
            assert await first.ask() == ["127.99.0.3"]
            pid = await first.pid()
            inode = os.fstat(first.listeners.all()[0].fds()[0]).st_ino
        async with half(paths, end=True) as second:
            assert await second.pid() == pid
            assert os.fstat(second.listeners.all()[0].fds()[0]).st_ino == inode
            assert await second.ask() == ["127.99.0.3"]
        await until_gone(pid)

    play(scenario)


@pytest.mark.parametrize("how", ["other version", "stopped"])
def test_one_that_can_not_be_used_is_replaced(paths: Paths, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with half(paths, end=False) as first:
            assert await first.ask() == ["127.99.0.3"]
            old = await first.pid()
        if how == "stopped":
            os.kill(old, signal.SIGSTOP)
            monkeypatch.setattr(resolvers, "_PATIENCE", 0.1)
        else:
            monkeypatch.setattr(resolvers, "__version__", "0.0.1")
        async with half(paths, end=True) as second:
            assert await second.ask() == ["127.99.0.3"]
            assert await second.pid() != old
            await until_gone(old)

    play(scenario)


def test_one_that_dies_again_and_again_is_tried_more_seldom(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        starts: list[int] = []
        spawn = Resolver._spawn

        def failing(self: Resolver, run: str, listener: int) -> int:
            starts.append(listener)
            if len(starts) > 8:
                return spawn(self, run, listener)
            return os.posix_spawn("/bin/false", ["false"], {})

        monkeypatch.setattr(Resolver, "_spawn", failing)
        monkeypatch.setattr(resolvers, "_RESTART_DELAY", 0.05)
        async with half(paths, end=True) as daemon:
            assert await daemon.ask() == ["127.99.0.3"]
        assert len(starts) == 9

    play(scenario)


def test_what_is_no_more_is_let_go(paths: Paths) -> None:
    async def scenario() -> None:
        async with half(paths, end=False) as first:
            assert await first.ask() == ["127.99.0.3"]
            pid = await first.pid()
        second = Half(paths)
        await second.resolver.adopt()
        second.resolver.settle(set())
        assert table.told(paths) == set()
        fds = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        while sum("socket" in fd for fd in fds) > 2:  # the listener and our link
            await asyncio.sleep(0.005)
            fds = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        await second.resolver.close(end=True)
        await until_gone(pid)

    play(scenario)


def test_where_no_socket_can_be_bound_nobody_listens(paths: Paths, caplog: pytest.LogCaptureFixture) -> None:
    class Busy(socket.socket):
        def bind(self, address: object) -> None:
            raise OSError(98, "Address already in use")

    async def scenario() -> None:
        daemon = Half(paths)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(listening.socket, "socket", Busy)
            daemon.listeners.ensure(NETWORK)
        assert daemon.listeners.ports(NETWORK.id) == {}
        assert "no names on network net" in caplog.text
        await daemon.resolver.close(end=True)

    play(scenario)
