"""The nouns of the networks room, as data. Addresses and subnets are text; those of leases in CIDR form."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bothy.networks import options as driver_options
from bothy.networks.options import Options


@dataclass(frozen=True)
class Network:
    """`driver` is bridge, host or null; `bridge`, `subnet` (CIDR) and `gateway` are set for a bridge only, `subnet6` and `gateway6`
    for one with IPv6. `ip_range`: where addresses come from that nobody asks for. `auxiliary`: addresses, by name, that no workload
    gets.

    `internal`: no way in or out but the bridge itself. `options` are the driver's (see `bothy.networks.options`).
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
    ip_range: str = ""
    subnet6: str = ""
    gateway6: str = ""
    ip_range6: str = ""
    auxiliary: dict[str, str] = field(default_factory=dict)
    attachable: bool = False
    ipam_options: dict[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> Options:
        """Its options, read."""
        return driver_options.read(self.options)

    def reserved(self, version: int) -> list[str]:
        """Its auxiliary addresses of one version of IP."""
        return [address for address in self.auxiliary.values() if (":" in address) == (version == 6)]


@dataclass(frozen=True)
class IpamPool:
    """One subnet that a network is asked to have."""

    subnet: str
    gateway: str = ""
    ip_range: str = ""
    auxiliary: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class NetworkRequest:
    """A bridge network to be made; at most one pool of each version of IP, the others are chosen. `ipv6`: it has both versions."""

    name: str
    pools: list[IpamPool] = field(default_factory=list)
    ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    ipam_options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Lease:
    """One workload's place on a network: `address` in CIDR form; `link` is the name for the host's end of its veth, or its tap.

    `interface` is its name inside. `gateway` is empty where there is no way out (an internal network), `address6` where there is no
    IPv6. `priority`: of several networks the one with the highest leads out (see `way_out`). `isolated`: from the others there.
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
    address6: str = ""
    gateway6: str = ""
    isolated: bool = False

    @property
    def ip(self) -> str:
        return self.address.partition("/")[0]

    @property
    def ip6(self) -> str:
        return self.address6.partition("/")[0]

    @property
    def addresses(self) -> list[str]:
        """Without prefix lengths."""
        return [self.ip, self.ip6] if self.address6 else [self.ip]


def way_out(leases: Iterable[Lease], version: int = 4) -> Lease | None:
    """The one of a workload's networks that its default route (of one version of IP) is on, as Docker chooses.

    By priority, then with both versions of IP before one, then by name. Source: moby daemon/libnetwork/endpoint.go, `Less`.
    """
    leading = [lease for lease in leases if (lease.gateway if version == 4 else lease.gateway6)]
    return min(leading, key=lambda lease: (-lease.priority, not lease.gateway6, lease.network_name), default=None)


@dataclass(frozen=True)
class PortRequest:
    """A port to publish. `host_port` as Docker writes it: empty or `0` any free one, `8080`, or one of a range (`8000-8010`).

    Without a `host_ip` it is published on every address of the host."""

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

    @property
    def version(self) -> int:
        """Of IP."""
        return 6 if ":" in self.host_ip else 4

    def __str__(self) -> str:
        host = f"[{self.host_ip}]" if self.version == 6 else self.host_ip
        return f"{host}:{self.host_port}->{self.container_port}/{self.protocol}"
