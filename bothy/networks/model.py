"""The nouns of the networks room, as data. Addresses of networks and leases are IPv4."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Network:
    """`driver` is bridge, host or null; `bridge`, `subnet` (CIDR) and `gateway` are set for a bridge only.

    `internal`: no way in or out but the bridge itself.
    """

    id: str
    name: str
    driver: str
    created: str
    bridge: str = ""
    subnet: str = ""
    gateway: str = ""
    internal: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Lease:
    """One workload's place on a network: `address` in CIDR form; `link` is the name for the host's end of its veth, or its tap.

    `interface` is its name inside. `gateway` is empty where there is no way out (an internal network). `priority`: of several
    networks the one with the highest leads out (see `ways_out`).
    """

    workload: str
    network: str
    network_name: str
    address: str
    gateway: str
    mac: str
    bridge: str
    link: str
    mtu: int = 1500
    interface: str = "eth0"
    priority: int = 0

    @property
    def ip(self) -> str:
        return self.address.partition("/")[0]


def way_out(leases: Iterable[Lease]) -> Lease | None:
    """The one of a workload's networks that its default route is on, as Docker chooses: by priority, then by name."""
    leading = [lease for lease in leases if lease.gateway]
    return min(leading, key=lambda lease: (-lease.priority, lease.network_name), default=None)


@dataclass(frozen=True)
class PortRequest:
    """A port to publish. `host_port` as Docker writes it: empty or `0` any free one, `8080`, or one of a range (`8000-8010`)."""

    container_port: int
    protocol: str = "tcp"
    host_ip: str = ""
    host_port: str = ""


@dataclass(frozen=True)
class Published:
    """A port as it is published: what arrives at `host_ip`:`host_port` of the host goes to the workload's `container_port`."""

    container_port: int
    protocol: str
    host_ip: str
    host_port: int

    def __str__(self) -> str:
        return f"{self.host_ip}:{self.host_port}->{self.container_port}/{self.protocol}"
