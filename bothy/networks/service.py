"""The networks of one engine: their bridges, who has which address, which ports are published.

                       host                                │           workload
    uplink ── nftables (one table) ── bridge 172.30.0.1 ───┼── veth or tap ── eth0 172.30.0.2
                                                           │
Leases and published ports live in memory; after a restart of the daemon its records are given back by `adopt`, and `reconcile` then
makes the kernel agree. A lease costs no system call worth the name and no nft call; only publishing does (one).
Not to be shared by threads. Errors are BothyErrors, and OSErrors where the kernel refuses what it should not.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Network

from bothy.errors import Broken, Conflict, Forbidden, Invalid, NotFound
from bothy.jsonable import PLAIN
from bothy.linux import links
from bothy.linux.links import Attachment, Interface, Route
from bothy.log import logger
from bothy.networks import bridge, conntrack, firewall, foreign
from bothy.networks.ipam import Pool, choose_subnet, mac_of, parse_subnet
from bothy.networks.model import Lease, Network, PortRequest, Published, way_out
from bothy.networks.nftables import Nftables, Watch
from bothy.networks.ports import Ports
from bothy.paths import Paths

DEFAULT = "bridge"
BUILT_IN = {"bridge": "bridge", "host": "host", "none": "null"}
# `Networks.list` hides the built-in one from the annotations of its class
Leases = list[Lease]
Attachments = list[Attachment]
PublishedPorts = list[Published]
Names = list[str]
_log = logger("networks")


class Networks:
    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._file = paths.root / "networks.json"
        self._nft = Nftables()
        self._watch: Watch | None = None
        self._ports = Ports()
        self._addresses: dict[Published, str] = {}
        self._leases: dict[str, dict[str, Lease]] = {}
        self._networks: dict[str, Network] = self._load()
        self._pools: dict[str, Pool] = {}
        self._ready: set[str] = set()
        self._mtu = 0

    # -- networks

    def list(self) -> list[Network]:
        """All networks: bridge, host and none first."""
        return list(self._networks.values())

    def get(self, ref: str) -> Network:
        """A network by name, id or unique beginning of an id; `default` is the default bridge. Raises NotFound."""
        ref = DEFAULT if ref in ("", "default") else ref
        named = [n for n in self._networks.values() if ref in (n.name, n.id)]
        found = named or [n for n in self._networks.values() if n.id.startswith(ref)]
        if len(found) != 1:
            problem = "matches several networks" if found else "not found"
            raise NotFound(f"network {ref} {problem}", hint="bothy network ls lists them")
        return found[0]

    def ensure_default(self) -> Network:
        """Make the default network's bridge and the engine's table, if they are not there. Idempotent and quick when they are."""
        return self._ensure(self.get(DEFAULT))

    def create(
        self,
        name: str,
        *,
        subnet: str = "",
        gateway: str = "",
        internal: bool = False,
        labels: dict[str, str] | None = None,
        options: dict[str, str] | None = None,
    ) -> Network:
        """A bridge network of its own, apart from the others. Raises Conflict, Invalid, Forbidden; then nothing is left."""
        if any(n.name == name for n in self._networks.values()):
            raise Conflict(f"network with name {name} already exists")
        taken = bridge.taken_subnets() + [IPv4Network(n.subnet) for n in self._networks.values() if n.subnet]
        chosen = parse_subnet(subnet) if subnet else choose_subnet(taken)
        if any(chosen.overlaps(other) for other in taken):
            raise Forbidden(f"subnet {chosen} overlaps one that this host has already", hint="choose another, or leave it to bothy")
        if gateway and not bridge.address_in(str(chosen), gateway):
            raise Invalid(f"gateway {gateway} is not in subnet {chosen}")
        identity = secrets.token_hex(32)
        network = Network(
            id=identity,
            name=name,
            driver="bridge",
            created=_now(),
            bridge=f"by-{identity[:12]}",
            subnet=str(chosen),
            gateway=gateway or str(chosen[1]),
            internal=internal,
            labels=labels or {},
            options=options or {},
        )
        self._networks[identity] = network
        try:
            self._ensure(network)
            self._save()
        except BaseException:
            del self._networks[identity]
            self._unmake(network)
            raise
        return network

    def remove(self, ref: str) -> Network:
        """Remove a network and its bridge. Raises Forbidden for the built-in ones and while it has workloads."""
        network = self.get(ref)
        if network.name in BUILT_IN:
            raise Forbidden(f"{network.name} is a pre-defined network and can not be removed")
        users = [workload for workload, found in self._leases.items() if network.id in found]
        if users:
            raise Forbidden(f"network {network.name} has active endpoints: {', '.join(u[:12] for u in users)}")
        del self._networks[network.id]
        self._unmake(network)
        self._save()
        return network

    # -- leases

    def lease(
        self, workload: str, network: str = DEFAULT, *, address: str = "", mac: str = "", interface: str = "", priority: int = 0
    ) -> Lease:
        """An address on a network for a workload, of its own choice if `address`; its bridge is there afterwards.

        The same lease again if it has one. Raises NotFound, Invalid (a network without addresses), Unavailable.
        """
        found = self._ensure(self.get(network))
        held = self._leases.get(workload, {}).get(found.id)
        if held:
            return held
        pool = self._pool(found)
        if address:
            pool.claim(address, workload)
        else:
            address = pool.take(workload)
        return self._note(workload, found, address, mac, interface=interface, priority=priority)

    def adopt(
        self,
        workload: str,
        network: str,
        address: str,
        ports: Sequence[Published] = (),
        mac: str = "",
        *,
        link: str = "",
        interface: str = "",
        priority: int = 0,
    ) -> Lease:
        """Take back what a running workload had under the last daemon. Changes nothing in the kernel: call `reconcile` after all.

        `address` with or without a prefix length. Raises NotFound, Invalid, Conflict.
        """
        found = self.get(network)
        address = address.partition("/")[0]
        self._pool(found).claim(address, workload)
        for port in self._ports.adopt(workload, ports):
            _log.warning("%s of workload %s has been bound by another program", port, workload[:12])
        self._addresses = {**dict.fromkeys(ports, address), **self._addresses}  # of several networks the first has the ports
        return self._note(workload, found, address, mac, link, interface, priority)

    def release(self, workload: str) -> None:
        """Give back all that a workload has: addresses and published ports. One that has nothing is no error."""
        if self._ports.of(workload):
            self.unpublish(workload)
        for lease in self._leases.pop(workload, {}).values():
            pool = self._pools.get(lease.network)
            if pool:
                pool.give_back(lease.ip)

    def leases(self, network: str = "") -> Leases:
        """All leases, or those on one network (by id)."""
        return [lease for held in self._leases.values() for lease in held.values() if network in ("", lease.network)]

    def attachments(self, workload: str) -> Attachments:
        """A workload's interfaces, as its plan needs them, in the order of its leases; the default route is on one of them."""
        leases = list(self._leases.get(workload, {}).values())
        leading = way_out(leases)
        return [attachment(lease, leads_out=lease is leading) for lease in leases]

    def attached(self, workload: str) -> None:
        """To be called when a workload that has published ports has its link: lets it reach itself by the host's address.

        Where bridged packets pass the firewall, such a packet has to leave by the port that it came in by.
        """
        if self._ports.of(workload) and bridge.filters_bridged():
            for lease in self._leases.get(workload, {}).values():
                with contextlib.suppress(OSError):  # it has ended since
                    links.set_hairpin(lease.link)

    # -- ports

    def publish(self, workload: str, address: str, requests: Sequence[PortRequest]) -> PublishedPorts:
        """Publish ports of the workload at `address`, all or none, in the place of any it had. Returns them with their host ports.

        Raises Conflict (taken, and by whom), Invalid, Forbidden, Unsupported (IPv6), Broken.
        """
        if not requests:
            return []
        address = address.partition("/")[0]
        self.ensure_default()
        self.unpublish(workload)
        published = self._ports.reserve(workload, requests)
        elements = [firewall.element(port, address) for port in published]
        self._addresses.update(dict.fromkeys(published, address))
        try:
            self._change(firewall.add_elements(self._paths.scope, elements))
        except BaseException:
            self._forget(workload)
            raise
        self._forget_flows(published, address)
        return published

    def unpublish(self, workload: str) -> None:
        """End a workload's publishing; one that has nothing published is no error."""
        if not self._ports.of(workload):
            return
        address = self._addresses[self._ports.of(workload)[0]]
        gone = self._forget(workload)
        self._change(firewall.delete_elements(self._paths.scope, [firewall.element(port, address) for port in gone]))
        self._forget_flows(gone, address)

    def published(self, workload: str) -> PublishedPorts:
        """What a workload has published."""
        return self._ports.of(workload)

    # -- the kernel's side

    def reconcile(self) -> None:
        """Make the kernel agree with what is known: bridges, table, no links of workloads that are gone. Cheap when it does."""
        used = {lease.network for lease in self.leases()}
        for network in self.list():
            if network.bridge and (network.id in used or network.name != DEFAULT or bridge.exists(network.bridge)):
                self._ready.discard(network.id)
                self._ensure(network, rebuild=False)
        if not self._ready:
            return
        if not self._table_is_right():
            self._rebuild()
        foreign.open_forward(self._nft, self._bridges())
        wanted = {lease.link for lease in self.leases()}
        links.delete_links(bridge.stray_links(self._bridges(), wanted))

    def watch(self) -> int:
        """A descriptor that becomes readable when anybody changes a firewall of this host; then ask `disturbed`. Raises OSError."""
        self._watch = self._watch or Watch()
        return self._watch.fileno()

    def disturbed(self) -> bool:
        """Whether another process has changed a firewall since the last call: then `reconcile` is due, when it has finished."""
        return bool(self._ready) if self._watch and self._watch.foreign_change() else False

    def teardown(self) -> None:
        """Remove from the kernel all that this engine has put there: table, rules, bridges, links. State on disk stays."""
        bridges = [n.bridge for n in self.list() if n.bridge]
        present = [name for name in bridges if bridge.exists(name)]
        foreign.close_forward(self._nft, bridges)
        self._nft.run(firewall.delete_table(self._paths.scope))
        links.delete_links(bridge.stray_links(present, set()) + present)
        self._ready.clear()
        self._ports.close()
        self._addresses.clear()
        self._leases.clear()
        self._pools.clear()

    def close(self) -> None:
        """Free this process's resources; what is in the kernel stays and goes on working."""
        self._ports.close()
        self._nft.close()
        if self._watch:
            self._watch.close()

    def _bridges(self) -> Names:
        return [n.bridge for n in self.list() if n.id in self._ready]

    def _ensure(self, network: Network, *, rebuild: bool = True) -> Network:
        if not network.bridge:
            raise Invalid(f"network {network.name} has no addresses")
        if network.id in self._ready and bridge.exists(network.bridge):
            return network
        self._mtu = self._mtu or bridge.uplink_mtu()
        network = self._with_subnet(network)
        bridge.make(network, self._mtu)
        while network.name == DEFAULT and bridge.contested(network) and not self.leases(network.id):
            links.delete_link(network.bridge)
            network = self._with_subnet(replace(network, subnet="", gateway=""))
            bridge.make(network, self._mtu)
        self._ready.add(network.id)
        if rebuild:
            self._rebuild()
            foreign.open_forward(self._nft, [network.bridge])
        return network

    def _with_subnet(self, network: Network) -> Network:
        """The network with a subnet, chosen and written down if it has none."""
        if network.subnet:
            return network
        others = [IPv4Network(n.subnet) for n in self._networks.values() if n.subnet and n.id != network.id]
        subnet = choose_subnet(bridge.taken_subnets(ignore=network.bridge) + others)
        network = replace(network, subnet=str(subnet), gateway=str(subnet[1]))
        self._networks[network.id] = network
        self._pools.pop(network.id, None)
        self._save()
        return network

    def _unmake(self, network: Network) -> None:
        self._ready.discard(network.id)
        self._pools.pop(network.id, None)
        foreign.close_forward(self._nft, [network.bridge])
        if bridge.exists(network.bridge):
            links.delete_links([*bridge.stray_links([network.bridge], set()), network.bridge])
        if self._ready:
            self._rebuild()

    def _table(self) -> firewall.Table:
        ready = [n for n in self.list() if n.id in self._ready]
        elements = [firewall.element(port, address) for port, address in self._addresses.items()]
        return firewall.table(self._paths.scope, ready, elements)

    def _rebuild(self) -> None:
        self._nft.run(self._table().script())

    def _table_is_right(self) -> bool:
        try:
            return self._table().matches(self._nft.query(f"list table ip {self._paths.scope}"))
        except Broken:
            return False

    def _change(self, script: str) -> None:
        """Run a script; if the table is not as we left it, build it anew from what is known, of which the change is part."""
        try:
            self._nft.run(script)
        except Broken:
            _log.warning("table ip %s is not as it was left; building it anew", self._paths.scope)
            self._rebuild()

    def _forget(self, workload: str) -> PublishedPorts:
        gone = self._ports.release(workload)
        for port in gone:
            self._addresses.pop(port, None)
        return gone

    def _forget_flows(self, ports: Sequence[Published], address: str) -> None:
        udp = [port.host_port for port in ports if port.protocol == "udp"]
        if udp:
            conntrack.forget_udp(udp, [address])

    def _note(
        self, workload: str, network: Network, address: str, mac: str, link: str = "", interface: str = "", priority: int = 0
    ) -> Lease:
        pool = self._pool(network)
        held = self._leases.setdefault(workload, {})
        lease = Lease(
            workload=workload,
            network=network.id,
            network_name=network.name,
            address=f"{address}/{pool.cidr}",
            gateway="" if network.internal else network.gateway,
            mac=mac or mac_of(address),
            bridge=network.bridge,
            link=link or _link(workload, {lease.link for lease in held.values()}),
            mtu=self._mtu or bridge.DEFAULT_MTU,
            interface=interface or _free_name({lease.interface for lease in held.values()}),
            priority=priority,
        )
        held[network.id] = lease
        return lease

    def _pool(self, network: Network) -> Pool:
        pool = self._pools.get(network.id)
        if not pool:
            if not network.subnet:
                raise Invalid(f"network {network.name} has no addresses")
            pool = self._pools[network.id] = Pool(IPv4Network(network.subnet), network.gateway)
        return pool

    # -- the file

    def _load(self) -> dict[str, Network]:
        try:
            data = json.loads(self._file.read_bytes())
            known = [PLAIN.from_data(Network, entry) for entry in data["networks"]]
        except FileNotFoundError:
            known = []
        except (ValueError, KeyError, TypeError) as exc:
            raise Broken(f"{self._file} is damaged: {exc}", hint="move it away; networks that you made must be made again") from exc
        names = {n.name for n in known}
        first = f"by{self._paths.key}0" if self._paths.key else "bothy0"
        for name, driver in BUILT_IN.items():
            if name not in names:
                known.append(Network(secrets.token_hex(32), name, driver, _now(), bridge=first if driver == "bridge" else ""))
        order = list(BUILT_IN)
        known.sort(key=lambda n: order.index(n.name) if n.name in order else len(order))
        # the bridge's name goes with the run folder, not with the state: a copied state root must not take another engine's bridge
        return {n.id: replace(n, bridge=first) if n.name == DEFAULT else n for n in known}

    def _save(self) -> None:
        """Write the networks down; the file is whole, old or new, whatever happens."""
        self._paths.root.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix(".new")
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump({"networks": PLAIN.to_data(self.list())}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._file)


def attachment(lease: Lease, *, leads_out: bool) -> Attachment:
    """What becomes of a lease in a plan: an interface inside, with the default route if it `leads_out`, and what it leads to."""
    routes = [Route("default", lease.gateway)] if leads_out else []
    return Attachment(Interface(lease.interface, lease.mac, [lease.address], routes, lease.mtu), lease.link, lease.bridge)


def _link(workload: str, taken: set[str]) -> str:
    """A name for the host's end, at most 15 characters: of a further network with a shorter part of the id and a number."""
    names = (f"by{workload[:10]}-{number:x}" for number in itertools.count(1))
    return next(name for name in (f"by{workload[:12]}", *itertools.islice(names, len(taken))) if name not in taken)


def _free_name(taken: set[str]) -> str:
    return next(name for name in map("eth{}".format, range(len(taken) + 1)) if name not in taken)


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
