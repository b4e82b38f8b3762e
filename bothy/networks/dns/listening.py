"""bothyd's half of the DNS server: the sockets of every network, made here and handed over, and how the process is started.

A query goes to port 53 of the gateway; our firewall table sends it on to `PORT` there, where the socket is. Port 53 itself stays
free, on every address: for a DNS server of the host, whichever starts first, and for one that a workload publishes.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bothy.log import logger
from bothy.networks.dns import message
from bothy.networks.model import Network

PORT = 10053
QUERY_PORT = 53
_ATTEMPTS = 16
# linux/in.h, linux/in6.h: the address may come later than the socket (that of IPv6 is only tried out at first)
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78
_START = "import sys; sys.path.insert(0, sys.argv[1]); from bothy.networks.dns.main import main; sys.exit(main(sys.argv[2:]))"
_log = logger("networks")


def argv(run: str, listener: int, resolv_conf: str) -> list[str]:
    """The command of a server for this run folder, with the inherited descriptor at which it is spoken to.

    Isolated and without site-packages, as the spawner: it needs the standard library only.
    """
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    return [sys.executable, "-I", "-S", "-c", _START, here, run, str(listener), resolv_conf]


@dataclass
class Listening:
    """The sockets of one network. `device` is its bridge by number: one that is made anew needs new sockets. `port` by gateway."""

    told: dict[str, Any]
    device: int
    port: dict[str, int]
    sockets: list[socket.socket] = field(default_factory=list)

    def fds(self) -> list[int]:
        return [sock.fileno() for sock in self.sockets]

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


class Listeners:
    """The sockets of all networks, and duplicates of those that the server has. `on_serve` and `on_drop` are told of changes."""

    def __init__(self) -> None:
        self._held: dict[str, Listening] = {}
        self._left: dict[str, list[socket.socket]] = {}
        self.on_serve: Callable[[Listening], None] = lambda listening: None
        self.on_drop: Callable[[str], None] = lambda network: None

    def adopt(self, network: str, fds: list[int]) -> None:
        """Sockets that a server has had since before this daemon; `ensure` uses those that fit. Owns the descriptors."""
        self._left[network] = [socket.socket(fileno=fd) for fd in fds]

    def ensure(self, network: Network) -> None:
        """Listen for a network's queries, whose bridge is there. Where that can not be, it is logged, and nobody answers them."""
        device = socket.if_nametoindex(network.bridge)
        told = _told(network)
        held = self._held.get(network.id)
        if held and held.device == device and held.told == told:
            return
        listening = Listening(told, device, {})
        left = self._left.pop(network.id, [])
        try:
            for gateway in told["gateways"]:
                pair = _fitting(left, gateway, network.bridge) or _open(gateway, network.bridge)
                listening.port[gateway] = int(pair[0].getsockname()[1])
                listening.sockets += pair
        except OSError as exc:
            _log.error("no names on network %s: %s", network.name, exc)
        for sock in left:
            if sock not in listening.sockets:
                sock.close()
        self._held[network.id] = listening
        if held:
            held.close()
        self.on_serve(listening)

    def drop(self, network: str) -> None:
        """The network is no more; one that was not served is no error."""
        held = self._held.pop(network, None)
        if held:
            held.close()
            self.on_drop(network)

    def all(self) -> list[Listening]:
        return list(self._held.values())

    def ports(self, network: str) -> dict[str, int]:
        """Where queries for port 53 of each of a network's gateways are to be sent on to."""
        held = self._held.get(network)
        return dict(held.port) if held else {}

    def close(self) -> None:
        """Close the sockets here; the server has its own."""
        for listening in self._held.values():
            listening.close()
        self._held.clear()
        self.forget_left()

    def forget_left(self) -> list[str]:
        """Close what was adopted and is of no use; the networks that it was of."""
        left = list(self._left)
        for sockets in self._left.values():
            for sock in sockets:
                sock.close()
        self._left.clear()
        return left


def _told(network: Network) -> dict[str, Any]:
    return {
        "id": network.id,
        "name": network.name,
        "gateways": [gateway for gateway in (network.gateway, network.gateway6) if gateway],
        "subnets": [subnet for subnet in (network.subnet, network.subnet6) if subnet],
        "internal": network.internal,
    }


def _open(gateway: str, bridge: str) -> list[socket.socket]:
    """A datagram and a stream socket of one number at an address, which hear what comes by `bridge` only. Raises OSError."""
    for attempt in range(_ATTEMPTS):
        datagrams = stream = None
        try:
            datagrams = _bound(gateway, bridge, socket.SOCK_DGRAM, 0 if attempt else PORT)
            stream = _bound(gateway, bridge, socket.SOCK_STREAM, datagrams.getsockname()[1])
            stream.listen(128)
        except OSError as exc:
            for sock in (datagrams, stream):
                if sock is not None:
                    sock.close()
            if exc.errno != errno.EADDRINUSE:
                raise
        else:
            return [datagrams, stream]
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), gateway)


def _bound(gateway: str, bridge: str, kind: int, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in gateway else socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, bridge.encode())
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not count
        if ":" in gateway:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        sock.bind((gateway, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _fitting(left: list[socket.socket], gateway: str, bridge: str) -> list[socket.socket]:
    """The pair among these sockets that listens at an address of a bridge as it is now; empty without one."""
    found = []
    for sock in left:
        try:
            device = sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0").decode()
            address = message.unpack(message.pack(str(sock.getsockname()[0])))
        except OSError:
            continue  # its bridge is gone
        if device == bridge and address == gateway:
            found.append(sock)
    kinds = [sock.type for sock in found]
    ports = {sock.getsockname()[1] for sock in found}
    return (
        sorted(found, key=lambda s: s.type != socket.SOCK_DGRAM) if len(ports) == 1 and len(kinds) == len(set(kinds)) == 2 else []
    )
