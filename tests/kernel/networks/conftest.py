"""A host, its neighbour and workloads, each a network namespace of the test's own, so that the real host is not touched.

        lan 198.51.100.2 ── veth ── 198.51.100.1 host (the tests run here) ── bridge ── workloads

All are served by this one process: a socket belongs to the namespace in which it was made, whoever uses it later.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bothy.linux import links
from bothy.linux.links import Interface, Route
from bothy.networks.model import Lease
from bothy.networks.service import Networks, attachment
from bothy.paths import Paths

CLONE_NEWNET = 0x40000000
PATIENCE, PATIENCE6 = 1.0, 4.0
LAN_HOST = ["198.51.100.1/24", "2001:db8:7::1/64"]
_libc = ctypes.CDLL(None, use_errno=True)


def _check(status: int) -> None:
    if status:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@dataclass
class Workload:
    """A namespace with an interface that a lease describes."""

    world: World
    netns: int
    lease: Lease

    def listen(self, port: int, kind: int = socket.SOCK_STREAM, address: str = "0.0.0.0") -> socket.socket:
        with self.world.inside(self.netns):
            return self.world.server(address, port, kind)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class World:
    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.host = self.netns()
        self.lan = -1
        _check(_libc.setns(self.host, CLONE_NEWNET))

    def netns(self) -> int:
        """A new network namespace with its loopback up; the caller stays where it is."""
        before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.unshare(CLONE_NEWNET))
            links.loopback_up()
            fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self.stack.callback(os.close, fd)
            return fd
        finally:
            _check(_libc.setns(before, CLONE_NEWNET))
            os.close(before)

    @contextmanager
    def inside(self, netns: int) -> Iterator[None]:
        _check(_libc.setns(netns, CLONE_NEWNET))
        try:
            yield
        finally:
            _check(_libc.setns(self.host, CLONE_NEWNET))

    def add_neighbour(self) -> None:
        self.lan = self.netns()
        links.create_veth("uplink", "eth0", self.lan)
        links.configure(Interface("uplink", "02:00:00:00:00:01", LAN_HOST, [Route("default", "198.51.100.2")]))
        with self.inside(self.lan):
            links.configure(Interface("eth0", "02:00:00:00:00:02", ["198.51.100.2/24", "2001:db8:7::2/64"]))
        assert links.settle("uplink")

    def workload(self, networks: Networks, name: str, network: str = "bridge") -> Workload:
        lease = networks.lease(name * 64, network)
        netns = self.netns()
        found = attachment(lease, four=bool(lease.gateway), six=bool(lease.gateway6))
        links.connect(lease.link, lease.bridge, netns, found.interface, isolated=found.isolated)
        return Workload(self, netns, lease)

    def server(self, address: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        server = socket.socket(_family(address), kind)
        self.stack.callback(server.close)
        server.settimeout(PATIENCE)
        if server.family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind((address, port))
        if kind == socket.SOCK_STREAM:
            server.listen()
        return server

    def ask(self, netns: int, address: str, port: int, server: socket.socket, *, patience: float = 0.0) -> str:
        """Send a word from `netns` to address:port and back by `server`; the client's address as the server sees it.

        OSError (TimeoutError) if it does not get there. The kernel listens for questions about a new IPv6 address when it gets round to
        it (a work queue); who has asked before asks again after a second, and perhaps the one at the other end then too.
        """
        patience = patience or (PATIENCE6 if ":" in address else PATIENCE)
        server.settimeout(patience)
        with self.inside(netns):
            client = socket.socket(_family(address), server.type)
        with client:
            client.settimeout(patience)
            client.connect((address, port))
            if server.type == socket.SOCK_DGRAM:
                client.send(b"ping")
                data, peer = server.recvfrom(16)
                server.sendto(b"pong", peer)
            else:
                connection, peer = server.accept()
                with connection:
                    client.send(b"ping")
                    data = connection.recv(16)
                    connection.send(b"pong")
            assert data == b"ping"
            assert client.recv(16) == b"pong"
            return str(peer[0])

    def can_not(self, netns: int, address: str, port: int, server: socket.socket) -> bool:
        """Whether the word does not arrive (a short wait: everything here is local)."""
        try:
            self.ask(netns, address, port, server, patience=0.3)
        except OSError:
            return True
        return False


@pytest.fixture
def world() -> Iterator[World]:
    before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with ExitStack() as stack:
            yield World(stack)
    finally:
        _check(_libc.setns(before, CLONE_NEWNET))
        os.close(before)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "root", tmp_path / "run")


@pytest.fixture
def networks(world: World, paths: Paths) -> Iterator[Networks]:
    service = Networks(paths)
    yield service
    service.close()
