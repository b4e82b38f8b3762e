"""Who is on which network, with which addresses, by which link. In memory only, no kernel."""

from __future__ import annotations

import itertools
from ipaddress import ip_network

from bothy.errors import Invalid
from bothy.linux.links import Attachment, Interface, Route
from bothy.networks.ipam import Pool, mac_of
from bothy.networks.model import Lease, Network

_Leases = list[Lease]


class Leases:
    """By workload and network. A failed `add` leaves nothing."""

    def __init__(self) -> None:
        self._held: dict[str, dict[str, Lease]] = {}
        self._pools: dict[str, Pool] = {}

    def find(self, workload: str, network: str) -> Lease | None:
        """A workload's place on a network (by id)."""
        return self._held.get(workload, {}).get(network)

    def of(self, workload: str) -> _Leases:
        """A workload's, in the order in which it got them."""
        return list(self._held.get(workload, {}).values())

    def on(self, network: str = "") -> _Leases:
        """All of them, or those on one network (by id)."""
        return [lease for held in self._held.values() for lease in held.values() if network in ("", lease.network)]

    def add(
        self,
        workload: str,
        network: Network,
        address: str = "",
        address6: str = "",
        *,
        mac: str = "",
        link: str = "",
        interface: str = "",
        priority: int = 0,
        mtu: int = 1500,
        isolated: bool = False,
    ) -> Lease:
        """A place for a workload that has none there yet; what is not named is chosen. Raises Invalid, Conflict, Unavailable."""
        held = self._held.get(workload, {})
        taken = {lease.interface for lease in held.values()}
        if interface in taken:
            raise Invalid(f"the workload has an interface {interface} already", hint="give each network's another name")
        if address6 and not network.subnet6:
            raise Invalid(
                f"invalid endpoint settings:\nno configured subnet contains IP address {address6}",
                hint=f"network {network.name} was made without --ipv6",
            )
        pool = self._pool(network.id, network.subnet, network.gateway, network.ip_range, network.reserved(4))
        address = _get(pool, address, workload)
        if network.subnet6:
            pool6 = self._pool(network.id + "6", network.subnet6, network.gateway6, network.ip_range6, network.reserved(6))
            try:
                address6 = _get(pool6, address6, workload)
            except BaseException:
                pool.give_back(address, workload)
                raise
            address6 = f"{address6}/{pool6.cidr}"
        lease = Lease(
            workload=workload,
            network=network.id,
            network_name=network.name,
            address=f"{address}/{pool.cidr}",
            gateway="" if network.internal else network.gateway,
            mac=mac or mac_of(address),
            bridge=network.bridge,
            link=link or _link(workload, {lease.link for lease in held.values()}),
            mtu=mtu,
            interface=interface or _free_name(taken),
            priority=priority,
            address6=address6,
            isolated=isolated,
            gateway6="" if network.internal or not address6 else network.gateway6,
        )
        self._held.setdefault(workload, {})[network.id] = lease
        return lease

    def remove(self, workload: str, network: str = "") -> None:
        """Give back a workload's place on a network (by id), or all of its places."""
        held = self._held.get(workload, {})
        for lease in [lease for lease in held.values() if network in ("", lease.network)]:
            del held[lease.network]
            for key, address in ((lease.network, lease.ip), (lease.network + "6", lease.ip6)):
                if address and key in self._pools:
                    self._pools[key].give_back(address, workload)
        if not held:
            self._held.pop(workload, None)

    def forget_pools(self, network: str) -> None:
        """Its subnets are not what they were."""
        self._pools.pop(network, None)
        self._pools.pop(network + "6", None)

    def clear(self) -> None:
        """Forget everything."""
        self._held.clear()
        self._pools.clear()

    def _pool(self, key: str, subnet: str, gateway: str, ip_range: str, reserved: list[str]) -> Pool:
        pool = self._pools.get(key)
        if pool is None:
            if not subnet:
                raise Invalid("the network has no addresses")
            pool = self._pools[key] = Pool(ip_network(subnet), gateway, ip_range, reserved)
        return pool


def attachment(lease: Lease, *, four: bool, six: bool) -> Attachment:
    """What becomes of a lease in a plan: an interface inside, and what it leads to. `four`, `six`: the default routes it has."""
    addresses = [lease.address] + ([lease.address6] if lease.address6 else [])
    routes = [Route("default", lease.gateway)] if four else []
    routes += [Route("default", lease.gateway6)] if six else []
    return Attachment(Interface(lease.interface, lease.mac, addresses, routes, lease.mtu), lease.link, lease.bridge, lease.isolated)


def _get(pool: Pool, address: str, workload: str) -> str:
    if not address:
        return pool.take(workload)
    pool.claim(address, workload)
    return address


def _link(workload: str, taken: set[str]) -> str:
    """A name for the host's end, at most 15 characters: of a further network with a shorter part of the id and a number."""
    first = f"by{workload[:12]}"
    further = (f"by{workload[:10]}-{number:x}" for number in itertools.count(1))
    return first if first not in taken else next(name for name in further if name not in taken)


def _free_name(taken: set[str]) -> str:
    return next(name for name in map("eth{}".format, itertools.count()) if name not in taken)
