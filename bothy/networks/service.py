"""The networks of one engine: their bridges, who has which address, which ports are published.

                       host                                │           workload
    uplink ── nftables (our tables) ─ bridge 172.30.0.1 ───┼── veth or tap ── eth0 172.30.0.2
                                                           │
Leases and published ports live in memory; after a restart of the daemon its records are given back by `adopt`, and `reconcile` then
makes the kernel agree. A lease costs no system call worth the name and no nft call; only publishing does (one).
Not to be shared by threads. Errors are BothyErrors, and OSErrors where the kernel refuses what it should not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from bothy.errors import Conflict, Forbidden, Invalid
from bothy.linux import links
from bothy.linux.links import Attachment
from bothy.log import logger
from bothy.networks import bridge, conntrack, doctor, firewall, foreign, nftables
from bothy.networks.catalog import BUILT_IN, DEFAULT, Catalog
from bothy.networks.dns.listening import Listeners
from bothy.networks.ipam import choose_subnet
from bothy.networks.leases import Leases, attachment
from bothy.networks.model import Lease, Network, NetworkRequest, PortRequest, Published, way_out
from bothy.networks.nftables import Nftables, Watch
from bothy.networks.ports import Ports
from bothy.networks.ruleset import Ruleset
from bothy.paths import Paths

# `Networks.list` hides the built-in one from the annotations of its class
LeaseList = list[Lease]
Attachments = list[Attachment]
PublishedPorts = list[Published]
Names = list[str]
Tables = list[firewall.Table]
Findings = doctor.Findings
_log = logger("networks")


class Networks:
    """`default_bind`: the host's address for ports that name none; empty for all of them. `names`: where the DNS server listens."""

    def __init__(self, paths: Paths, default_bind: str = "") -> None:
        self._scope = paths.scope
        self._catalog = Catalog(paths)
        self._default_bind = default_bind
        self._nft = Nftables()
        self._rules = Ruleset(self._nft, self._scope, self._tables)
        self._watch: Watch | None = None
        self._ports = Ports()
        self._addresses: dict[Published, str] = {}
        self._leases = Leases()
        self.names = Listeners()
        self._ready: set[str] = set()
        self._mtu = 0

    # -- networks

    def list(self) -> list[Network]:
        """All networks: bridge, host and none first."""
        return self._catalog.list()

    def get(self, ref: str) -> Network:
        """A network by name, id or unique beginning of an id; `default` is the default bridge. Raises NotFound, Invalid."""
        return self._catalog.get(ref)

    def ensure_default(self) -> Network:
        """Make the default network's bridge and the engine's table, if they are not there. Idempotent and quick when they are."""
        return self._ensure(self.get(DEFAULT))

    def create(self, request: NetworkRequest) -> Network:
        """A bridge network of its own, apart from the others.

        Raises Conflict, Invalid, Forbidden, Unsupported, Unavailable, OSError; then nothing is left.
        """
        network = self._catalog.design(request, bridge.taken_subnets())
        if bridge.exists(network.bridge):
            raise Conflict(f"there is an interface {network.bridge} already", hint="choose another name for the bridge")
        self._catalog.keep(network)
        try:
            self._ensure(network)
        except BaseException:
            self._catalog.drop(network)
            self._unmake(network)
            raise
        return network

    def remove(self, ref: str) -> Network:
        """Remove a network and its bridge. Raises Forbidden for the built-in ones and while it has workloads."""
        network = self.get(ref)
        if network.name in BUILT_IN:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        users = self._leases.on(network.id)
        if users:
            named = ", ".join(lease.workload[:12] for lease in users)
            raise Forbidden(f"error while removing network: network {network.name} has active endpoints ({named})")
        self._catalog.drop(network)
        self._unmake(network)
        return network

    # -- leases

    def lease(
        self,
        workload: str,
        network: str = DEFAULT,
        *,
        address: str = "",
        address6: str = "",
        mac: str = "",
        interface: str = "",
        priority: int = 0,
    ) -> Lease:
        """A place on a network for a workload, with addresses of its own choice if they are given; its bridge is there afterwards.

        The same lease again if it has one. Raises NotFound, Invalid (a network without addresses), Conflict, Unavailable.
        """
        found = self._ensure(self.get(network))
        held = self._leases.find(workload, found.id)
        return held or self._leases.add(
            workload,
            found,
            address,
            address6,
            mac=mac,
            interface=interface,
            priority=priority,
            mtu=self._mtu_of(found),
            isolated=self._isolates(found),
        )

    def adopt(self, known: Lease, ports: Sequence[Published] = ()) -> Lease:
        """Take back what a running workload had under the last daemon. Changes nothing in the kernel: call `reconcile` after all.

        `ports` go with the lease that leads out. Raises NotFound, Invalid, Conflict.
        """
        found = self.get(known.network)
        lease = self._leases.find(known.workload, found.id) or self._leases.add(
            known.workload, found, known.ip, known.ip6, mac=known.mac, link=known.link, interface=known.interface,
            priority=known.priority, mtu=known.mtu,
        )  # fmt: skip
        for port in self._ports.adopt(known.workload, ports):
            _log.warning("%s of workload %s has been bound by another program", port, known.workload[:12])
        self._addresses.update({port: lease.ip6 if port.version == 6 else lease.ip for port in ports})
        return lease

    def release(self, workload: str, network: str = "") -> None:
        """Give back all that a workload has, addresses and published ports, or its place on one network (by id).

        What it has not is no error. Ports stay with the network that leads out: see `republish`.
        """
        if not network and self._ports.of(workload):
            self.unpublish(workload)
        self._leases.remove(workload, network)

    def leases(self, network: str = "") -> LeaseList:
        """All leases, or those on one network (by id)."""
        return self._leases.on(network)

    def leases_of(self, workload: str) -> LeaseList:
        """A workload's, in the order of its interfaces."""
        return self._leases.of(workload)

    def attachments(self, workload: str, *, without: str = "") -> Attachments:
        """A workload's interfaces, as its plan needs them, in the order of its leases; default routes are where the way out is.

        `without`: as if it were not on that network (by id).
        """
        leases = [lease for lease in self._leases.of(workload) if lease.network != without]
        four, six = way_out(leases), way_out(leases, 6)
        return [attachment(lease, four=lease is four, six=lease is six) for lease in leases]

    def attached(self, workload: str) -> None:
        """To be called when a workload that has published ports has its link: lets it reach itself by the host's address.

        Where bridged packets pass the firewall, such a packet has to leave by the port that it came in by.
        """
        if self._ports.of(workload) and bridge.filters_bridged():
            for lease in self._leases.of(workload):
                with contextlib.suppress(OSError):  # it has ended since
                    links.set_hairpin(lease.link)

    def nameservers(self, workload: str) -> Names:
        """Where a workload's names are looked up: at the gateways of its networks, that of its way out first."""
        leases = self._leases.of(workload)
        leading = way_out(leases)
        leases.sort(key=lambda lease: lease is not leading)
        found = [self.get(lease.network) for lease in leases]
        return [n.gateway for n in found if n.gateway in self.names.ports(n.id)]

    # -- ports

    def publish(self, workload: str, requests: Sequence[PortRequest]) -> PublishedPorts:
        """Publish ports of a workload, all or none, beside those it has. Returns the new ones with their host ports.

        They lead to its addresses on the network that leads out. Raises Conflict (taken, and by whom), Invalid, Forbidden,
        Unsupported, Broken.
        """
        leases = self._leases.of(workload)
        four, six = way_out(leases), way_out(leases, 6)
        if not requests or four is None:
            return []
        self.ensure_default()
        bind = self.get(four.network).settings.host_binding or self._default_bind
        wanted = [replace(request, host_ip=request.host_ip or bind) for request in requests]
        published = self._ports.reserve(workload, wanted, ipv6=six is not None)
        targets = {port: six.ip6 if six and port.version == 6 else four.ip for port in published}
        self._addresses.update(targets)
        try:
            self._rules.change(firewall.add_elements(self._scope, _elements(targets)))
        except BaseException:
            self._forget(workload, published)
            raise
        self._forget_flows(targets)
        return published

    def unpublish(self, workload: str, ports: Sequence[Published] | None = None) -> PublishedPorts:
        """End a workload's publishing, of all its ports or of some; returns what has ended. One that has nothing is no error."""
        if not self._ports.of(workload):
            return []
        targets = {port: self._addresses[port] for port in self._ports.of(workload) if ports is None or port in ports}
        gone = self._forget(workload, list(targets))
        if gone:
            self._rules.change(firewall.delete_elements(self._scope, _elements(targets)))
            self._forget_flows(targets)
        return gone

    def republish(self, workload: str) -> PublishedPorts:
        """After a change of its networks: a workload's ports lead to where the way out is now. Returns those that it still has.

        Without a way out (or, for those of IPv6, one of IPv6) there is nothing to publish: they end.
        """
        leases = self._leases.of(workload)
        four, six = way_out(leases), way_out(leases, 6)
        before = {port: self._addresses[port] for port in self._ports.of(workload)}
        ends = {4: four.ip if four else "", 6: six.ip6 if six else ""}
        after = {port: ends[port.version] for port in before}
        moved = {port: address for port, address in before.items() if address != after[port]}
        if not moved:
            return list(before)
        lost = [port for port in moved if not after[port]]
        self._forget(workload, lost)
        new = {port: after[port] for port in moved if after[port]}
        self._addresses.update(new)
        script = firewall.delete_elements(self._scope, _elements(moved)) + firewall.add_elements(self._scope, _elements(new))
        self._rules.change(script)
        self._forget_flows({**moved, **new})
        return self._ports.of(workload)

    def published(self, workload: str) -> PublishedPorts:
        """What a workload has published."""
        return self._ports.of(workload)

    # -- the kernel's side

    def reconcile(self) -> None:
        """Make the kernel agree with what is known: bridges, table, no links of workloads that are gone. Cheap when it does.

        A kernel without nftables has nothing of ours, and gets nothing.
        """
        if not nftables.supported():
            return
        used = {lease.network for lease in self.leases()}
        for network in self.list():
            if network.bridge and (network.id in used or network.name != DEFAULT or bridge.exists(network.bridge)):
                self._ready.discard(network.id)
                self._ensure(network, rebuild=False)
        if not self._ready:
            return
        self.mend()
        foreign.open_chains(self._nft, self._bridges(), ipv6=self._has_ipv6())
        wanted = {lease.link for lease in self.leases()}
        links.delete_links(bridge.stray_links(self._bridges(), wanted))

    def mend(self) -> None:
        """Have our tables be as they should: what can be done at once where somebody has taken rules away, before `reconcile`."""
        if self._ready and not self._rules.is_right():
            self._rules.rebuild()
            self._ports.refuse_waiting()

    def watch(self) -> int:
        """A descriptor that becomes readable when anybody changes a firewall of this host; then ask `disturbed`.

        Raises Unavailable where this kernel has no nftables, OSError.
        """
        nftables.require()
        self._watch = self._watch or Watch()
        return self._watch.fileno()

    def disturbed(self) -> bool:
        """Whether another process has changed a firewall since the last call: then `reconcile` is due, when it has finished."""
        return bool(self._ready) if self._watch and self._watch.foreign_change() else False

    def examine(self) -> Findings:
        """What is published, and what is not as it should be. Changes nothing."""
        ready = [n for n in self.list() if n.id in self._ready]
        return doctor.examine(
            self._nft,
            self._scope,
            ready,
            self._addresses,
            self._ports.holders(),
            silent=[n for n in ready if not self.names.ports(n.id)],
            tables_are_right=not ready or self._rules.is_right(),
        )

    def teardown(self) -> None:
        """Remove from the kernel all that this engine has put there: table, rules, bridges, links. State on disk stays."""
        bridges = [n.bridge for n in self.list() if n.bridge]
        present = [name for name in bridges if bridge.exists(name)]
        if nftables.supported():
            foreign.shut(self._nft, bridges)
            self._rules.remove()
        links.delete_links(bridge.stray_links(present, set()) + present)
        self._ready.clear()
        self.names.close()
        self._ports.close()
        self._addresses.clear()
        self._leases.clear()

    def close(self) -> None:
        """Free this process's resources; what is in the kernel stays and goes on working."""
        self.names.close()
        self._ports.close()
        self._nft.close()
        if self._watch:
            self._watch.close()

    def _bridges(self) -> Names:
        return [n.bridge for n in self.list() if n.id in self._ready]

    def _has_ipv6(self) -> bool:
        return any(n.subnet6 for n in self.list() if n.id in self._ready)

    def _ensure(self, network: Network, *, rebuild: bool = True) -> Network:
        if not network.bridge:
            raise Invalid(f"network {network.name} has no addresses")
        if network.id in self._ready and bridge.exists(network.bridge):
            return network
        nftables.require()
        self._mtu = self._mtu or bridge.uplink_mtu()
        network = self._with_subnet(network)
        bridge.make(network, self._mtu_of(network))
        while network.name == DEFAULT and bridge.contested(network) and not self.leases(network.id):
            links.delete_link(network.bridge)
            network = self._with_subnet(replace(network, subnet="", gateway=""))
            bridge.make(network, self._mtu_of(network))
        self._ready.add(network.id)
        self.names.ensure(network)
        if rebuild:
            self._rules.rebuild()
            foreign.open_chains(self._nft, [network.bridge], ipv6=bool(network.subnet6))
        return network

    def _with_subnet(self, network: Network) -> Network:
        """The network with a subnet, chosen and written down if it has none: the default one at its first use."""
        if network.subnet:
            return network
        subnet = choose_subnet(bridge.taken_subnets(ignore=network.bridge) + self._catalog.subnets(but=network.id))
        network = replace(network, subnet=str(subnet), gateway=str(subnet[1]))
        self._catalog.keep(network)
        self._leases.forget_pools(network.id)
        return network

    def _isolates(self, network: Network) -> bool:
        """Whether the ports of its bridge keep its workloads apart: where the firewall sees what they say, it does that."""
        return not network.settings.icc and not bridge.filters_bridged()

    def _mtu_of(self, network: Network) -> int:
        return network.settings.mtu or self._mtu or bridge.DEFAULT_MTU

    def _unmake(self, network: Network) -> None:
        self._ready.discard(network.id)
        self.names.drop(network.id)
        self._leases.forget_pools(network.id)
        foreign.shut(self._nft, [network.bridge])
        if bridge.exists(network.bridge):
            links.delete_links([*bridge.stray_links([network.bridge], set()), network.bridge])
        self._rules.rebuild()

    def _tables(self) -> Tables:
        ready = [n for n in self.list() if n.id in self._ready]
        names = [firewall.name_element(n.bridge, at, port) for n in ready for at, port in self.names.ports(n.id).items()]
        return firewall.tables(self._scope, ready, _elements(self._addresses) + names)

    def _forget(self, workload: str, ports: Sequence[Published]) -> PublishedPorts:
        gone = self._ports.release(workload, ports)
        for port in gone:
            self._addresses.pop(port, None)
        return gone

    def _forget_flows(self, targets: Mapping[Published, str]) -> None:
        udp = [port for port in targets if port.protocol == "udp"]
        if udp:
            conntrack.forget_udp([port.host_port for port in udp], sorted({targets[port] for port in udp}))


def _elements(targets: Mapping[Published, str]) -> list[firewall.Element]:
    return [firewall.element(port, address) for port, address in targets.items()]
