"""Which subnet a network gets, and which address of it a workload gets. Pure data, no kernel.

A pool hands its addresses out in turn, so that an address that was given back comes again as late as can be: peers that still
remember its last holder (ARP tables, connections, DNS answers) have forgotten it by then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network

from bothy.errors import Conflict, Invalid, Unavailable


def candidates() -> Iterator[IPv4Network]:
    """The subnets to choose from, best first: 172.30 and 172.31, then 10.x from above (where few sites begin)."""
    yield IPv4Network("172.30.0.0/16")
    yield IPv4Network("172.31.0.0/16")
    for second in range(254, -1, -1):
        yield IPv4Network((10 << 24 | second << 16, 16))


def choose_subnet(taken: Iterable[IPv4Network]) -> IPv4Network:
    """The first candidate that overlaps nothing in `taken`. Raises Unavailable."""
    used = list(taken)
    for subnet in candidates():
        if not any(subnet.overlaps(other) for other in used):
            return subnet
    raise Unavailable("every private subnet overlaps a route of this host", hint="name a subnet for the network")


def parse_subnet(text: str) -> IPv4Network:
    """A subnet that someone asked for. Raises Invalid; IPv6 is told apart."""
    try:
        subnet = IPv4Network(text, strict=False)
    except ValueError:
        what = "IPv6 subnets are not supported yet" if ":" in text else f"{text!r} is not a subnet"
        raise Invalid(what, hint="give an IPv4 subnet such as 10.89.0.0/24") from None
    if subnet.prefixlen > 29:
        raise Invalid(f"subnet {text} is too small", hint="it needs at least 8 addresses (/29)")
    return subnet


def mac_of(address: str) -> str:
    """The hardware address that goes with an IPv4 address: 02:42 and its four bytes, as Docker does."""
    return "02:42:" + IPv4Address(address).packed.hex(":")


class Pool:
    """The addresses of one subnet; the gateway has the first one unless another is named."""

    def __init__(self, subnet: IPv4Network, gateway: str = "") -> None:
        self.subnet = subnet
        self.gateway = str(IPv4Address(gateway)) if gateway else str(subnet[1])
        self._base = int(subnet.network_address)
        self._last = subnet.num_addresses - 2
        self._next = 1
        self._used: dict[int, str] = {0: "", int(IPv4Address(self.gateway)) - self._base: "the gateway"}

    def take(self, holder: str) -> str:
        """The next free address, for `holder`. Raises Unavailable when there is none."""
        used, offset = self._used, self._next
        for _ in range(self._last):
            if offset > self._last:
                offset = 1
            if offset not in used:
                used[offset] = holder
                self._next = offset + 1
                return str(IPv4Address(self._base + offset))
            offset += 1
        raise Unavailable(f"no free address left in {self.subnet}", hint="remove workloads, or use a larger subnet")

    def claim(self, address: str, holder: str) -> None:
        """Take a certain address. Raises Invalid outside the subnet, Conflict for one that another has."""
        try:
            offset = int(IPv4Address(address)) - self._base
        except ValueError:
            raise Invalid(f"{address!r} is not an IPv4 address") from None
        if not 0 < offset <= self._last:
            raise Invalid(f"address {address} is not in subnet {self.subnet}")
        owner = self._used.setdefault(offset, holder)
        if owner != holder:
            raise Conflict(f"address {address} is already in use by {owner[:12]}" if len(owner) == 64 else f"{address} is {owner}")
        self._next = max(self._next, offset + 1)

    def give_back(self, address: str) -> None:
        """The address is free again; one that was not taken is no error."""
        offset = int(IPv4Address(address)) - self._base
        if str(IPv4Address(address)) != self.gateway and offset:
            self._used.pop(offset, None)

    @property
    def cidr(self) -> int:
        """The prefix length."""
        return self.subnet.prefixlen
