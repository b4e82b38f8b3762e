"""Which subnet a network gets, and which address of it a workload gets, of either family. Pure data, no kernel.

A pool hands its addresses out in turn, so that an address that was given back comes again as late as can be: peers that still
remember its last holder (ARP tables, connections, DNS answers) have forgotten it by then.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from bothy.errors import Conflict, Invalid, Unavailable

IPNetwork = IPv4Network | IPv6Network
IPAddress = IPv4Address | IPv6Address


def candidates() -> Iterator[IPv4Network]:
    """The subnets to choose from, best first: 172.30 and 172.31, then 10.x from above (where few sites begin)."""
    yield IPv4Network("172.30.0.0/16")
    yield IPv4Network("172.31.0.0/16")
    for second in range(254, -1, -1):
        yield IPv4Network((10 << 24 | second << 16, 16))


def candidates6(site: str) -> Iterator[IPv6Network]:
    """The /64s of an engine's own /48."""
    return IPv6Network(site).subnets(new_prefix=64)


def new_site() -> str:
    """A /48 of one's own to choose IPv6 subnets from: fd and 40 random bits (RFC 4193)."""
    return str(IPv6Network((0xFD << 120 | secrets.randbits(40) << 80, 48)))


def choose_subnet(taken: Iterable[IPNetwork]) -> IPv4Network:
    """The first candidate that overlaps nothing in `taken`. Raises Unavailable."""
    used = [network for network in taken if isinstance(network, IPv4Network)]
    for subnet in candidates():
        if not any(subnet.overlaps(other) for other in used):
            return subnet
    raise Unavailable(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
        hint="every private subnet overlaps a route of this host: name one with --subnet",
    )


def choose_subnet6(site: str, taken: Iterable[IPNetwork]) -> IPv6Network:
    """The first /64 of `site` that overlaps nothing in `taken`. Raises Unavailable."""
    used = [network for network in taken if isinstance(network, IPv6Network)]
    for subnet in candidates6(site):
        if not any(subnet.overlaps(other) for other in used):
            return subnet
    raise Unavailable(f"every subnet of {site} is taken", hint="name one with --subnet")


def overlapping(one: IPNetwork, others: Iterable[IPNetwork]) -> IPNetwork | None:
    """The first of `others` that overlaps `one`."""
    return next((other for other in others if other.version == one.version and one.overlaps(other)), None)


def check(subnet: str, gateway: str = "", ip_range: str = "", auxiliary: Mapping[str, str] | None = None) -> IPNetwork:
    """A subnet that someone asked for, with what belongs to it. Raises Invalid in Docker's words.

    Source: moby api/types/network/ipam.go, `ValidateIPAM`.
    """
    try:
        parsed = ip_network(subnet, strict=False)
    except ValueError:
        raise _invalid(_no_cidr(subnet), hint="such as 10.89.0.0/24 or fd00:89::/64") from None
    if "/" not in subnet:
        raise _invalid(_no_cidr(subnet))
    if ip_address(subnet.partition("/")[0]) != parsed.network_address:
        raise _invalid(f"invalid subnet {subnet}: it should be {parsed}")
    if parsed.max_prefixlen - parsed.prefixlen < 2:
        raise _invalid(f"invalid subnet {subnet}: it is too small", hint="it needs at least 4 addresses")
    if ip_range:
        _check_range(ip_range, parsed)
    for what, address in (("gateway", gateway), *((f"auxiliary address {k}:", v) for k, v in (auxiliary or {}).items())):
        if address:
            _check_address(what, address, parsed)
    return parsed


def _no_cidr(subnet: str) -> str:
    return f"invalid subnet {subnet}: invalid CIDR block notation"


def _check_range(text: str, parent: IPNetwork) -> None:
    try:
        inner = ip_network(text, strict=False)
    except ValueError:
        raise _invalid(f"invalid ip-range {text}: invalid CIDR block notation") from None
    if inner.version != parent.version:
        raise _invalid(f"invalid ip-range {text}: parent subnet is an IPv{parent.version} block")
    if inner.prefixlen < parent.prefixlen:
        raise _invalid(f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {parent}")
    if str(inner.network_address) != str(ip_address(text.partition("/")[0])):
        raise _invalid(f"invalid ip-range {text}: it should be {inner}")
    if inner.network_address not in parent:
        raise _invalid(f"invalid ip-range {text}: parent subnet {parent} doesn't contain ip-range")


def _check_address(what: str, text: str, parent: IPNetwork) -> None:
    try:
        address = ip_address(text)
    except ValueError:
        raise _invalid(f"invalid {what} {text}: invalid address") from None
    if address.version != parent.version:
        raise _invalid(f"invalid {what} {text}: parent subnet is an IPv{parent.version} block")
    if address not in parent:
        raise _invalid(f"invalid {what} {text}: parent subnet {parent} doesn't contain this address")


def _invalid(problem: str, hint: str = "") -> Invalid:
    return Invalid(f"invalid network config:\n{problem}", hint=hint)


def mac_of(address: str) -> str:
    """The hardware address that goes with an IPv4 address: 02:42 and its four bytes, as Docker does."""
    return "02:42:" + IPv4Address(address).packed.hex(":")


class Pool:
    """The addresses of one subnet; the gateway has the first one unless another is named.

    Those that nobody asks for by name come from `ip_range`, a part of the subnet, if there is one. `reserved` are given to nobody.
    """

    def __init__(self, subnet: IPNetwork, gateway: str = "", ip_range: str = "", reserved: Iterable[str] = ()) -> None:
        self.subnet = subnet
        self.gateway = str(ip_address(gateway)) if gateway else str(subnet[1])
        self._kind: type[IPv4Address] | type[IPv6Address] = IPv4Address if subnet.version == 4 else IPv6Address
        self._base = int(subnet.network_address)
        # an IPv6 subnet has no broadcast address, but its first is every router's (RFC 4291, 2.6.1)
        self._last = subnet.num_addresses - (2 if subnet.version == 4 else 1)
        inner = ip_network(ip_range) if ip_range else subnet
        self._low = max(1, int(inner.network_address) - self._base)
        self._high = min(self._last, int(inner.broadcast_address) - self._base)
        self._next = self._low
        self._used: dict[int, str] = {0: ""}
        for address in reserved:
            self._used[int(ip_address(address)) - self._base] = "an auxiliary address"
        self._used[int(ip_address(self.gateway)) - self._base] = "the gateway"

    def take(self, holder: str) -> str:
        """The next free address, for `holder`. Raises Unavailable when there is none."""
        used, offset = self._used, self._next
        for _ in range(min(self._high - self._low, len(used)) + 1):
            if offset > self._high:
                offset = self._low
            if offset not in used:
                used[offset] = holder
                self._next = offset + 1
                return str(self._kind(self._base + offset))
            offset += 1
        raise Unavailable(f"no free address left in {self.subnet}", hint="remove workloads, or use a larger subnet")

    def claim(self, address: str, holder: str) -> None:
        """Take a certain address. Raises Invalid outside the subnet, Conflict for one that another has."""
        try:
            offset = int(self._kind(address)) - self._base
        except ValueError:
            raise Invalid(f"{address!r} is not an IPv{self.subnet.version} address") from None
        if not 0 < offset <= self._last:
            raise Invalid(f"invalid endpoint settings:\nno configured subnet contains IP address {address}", hint=str(self.subnet))
        owner = self._used.setdefault(offset, holder)
        if owner != holder:
            whose = f"workload {owner[:12]} has it" if len(owner) == 64 else f"{address} is {owner}"
            raise Conflict(f"Address already in use: {whose}")
        if self._low <= offset <= self._high:
            self._next = max(self._next, offset + 1)

    def give_back(self, address: str, holder: str) -> None:
        """The address is free again; one that `holder` has not is no error."""
        offset = int(self._kind(address)) - self._base
        if self._used.get(offset) == holder:
            del self._used[offset]

    @property
    def cidr(self) -> int:
        """The prefix length."""
        return self.subnet.prefixlen
