"""connect and disconnect: a workload's networks change, while it runs or for its next start. What is changed stays changed.

Which network has its default routes, and where its published ports lead, is chosen anew each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bothy.engine.containers import hosts, network, publishing
from bothy.engine.hall import Hall
from bothy.engine.model import EndpointConfig, NetworkingConfig, Status, Wall
from bothy.engine.workloads import Live
from bothy.errors import BothyError, Conflict, Forbidden, Invalid, NotFound
from bothy.linux.hosts import HostsChange
from bothy.linux.links import Attachment, Interface
from bothy.log import logger
from bothy.networks.model import Network

_log = logger("engine")


async def connect(hall: Hall, live: Live, found: Network, wanted: EndpointConfig) -> None:
    """Put a workload on one more network. Raises Forbidden (it is on it), Invalid, Conflict (address in use), Unavailable, and what
    the keeper says; then nothing has changed."""
    async with live.lock:
        _check(live, found)
        record = live.record
        endpoints = dict(record.networking.endpoints_config)
        if live.keeper is not None and found.name in endpoints:
            raise Forbidden(f"endpoint with name {record.name} already exists in network {found.name}")
        network.check_endpoint(found, wanted)
        endpoints[found.name] = wanted = replace(wanted, network_id=found.id)
        networking = NetworkingConfig(endpoints)
        if record.wall is Wall.VM:
            network.check_cards(networking)
        if live.keeper is None:
            hall.workloads.amend(live, networking=networking)
            return
        lease = network.lease(hall, record, found.name, wanted)
        try:
            await live.keeper.connect(next(a for a in hall.networks.attachments(live.id) if a.link == lease.link))
            _settle(hall, live, networking)
        except BaseException:
            hall.networks.release(live.id, found.id)
            raise
        names = " ".join(network.own_names(live.record))
        hosts.change(hall, live, HostsChange(add=[f"{address}\t{names}" for address in lease.addresses]))
        network.announce(hall, live.record, "connect", network.endpoint(lease))


async def disconnect(hall: Hall, live: Live, found: Network, *, force: bool) -> None:
    """Take a workload off a network. With `force` also where its keeper fails. Raises NotFound (it is not on it), Forbidden."""
    async with live.lock:
        record = live.record
        if live.removed:
            raise NotFound(f"No such container: {live.id}")
        if found.name not in record.networking.endpoints_config:
            raise NotFound(f"container {record.name} is not connected to network {found.name}")
        if found.driver == "host":
            raise Invalid("container cannot be disconnected from host network or connected to host network")
        endpoints = {name: e for name, e in record.networking.endpoints_config.items() if name != found.name}
        networking = NetworkingConfig(endpoints)
        lease = next((one for one in hall.networks.leases_of(live.id) if one.network == found.id), None)
        if live.keeper is None or lease is None:
            hall.workloads.amend(live, networking=networking)
            return
        inheriting = heirs(hall.networks.attachments(live.id), hall.networks.attachments(live.id, without=found.id))
        try:
            for heir in inheriting or [None]:
                await live.keeper.disconnect(lease.link, heir)
        except BothyError as exc:
            if not force:
                raise
            _log.warning("%s was taken off %s by force: %s", record.name, found.name, exc)
        hall.networks.release(live.id, found.id)
        _settle(hall, live, networking)
        hosts.change(hall, live, HostsChange(drop_addresses=list(lease.addresses)))
        network.announce(hall, live.record, "disconnect", network.endpoint(lease))


def _check(live: Live, found: Network) -> None:
    record = live.record
    mode = record.host_config.network_mode
    if live.removed:
        raise NotFound(f"No such container: {record.id}")
    if record.status in (Status.REMOVING, Status.DEAD):
        raise Conflict(
            f"container {record.id} is marked for removal and cannot be connected or disconnected to the network {found.name}"
        )
    if mode.startswith("container:"):
        raise Invalid("container sharing network namespace with another container or host cannot be connected to any other network")
    if found.driver == "host" or "host" in record.networking.endpoints_config:
        raise Invalid("container cannot be disconnected from host network or connected to host network")
    if found.driver == "null" or "none" in record.networking.endpoints_config:
        raise Invalid("container cannot be connected to multiple networks with one of the networks in private (none) mode")


def heirs(before: Sequence[Attachment], after: Sequence[Attachment]) -> list[Interface | None]:
    """The interfaces that get a default route which they have not had: one, but for a way out each for IPv4 and IPv6."""
    routes = {a.link: a.interface.routes for a in before}
    return [replace(a.interface) for a in after if set(a.interface.routes) - set(routes.get(a.link, ()))]


def _settle(hall: Hall, live: Live, networking: NetworkingConfig) -> None:
    """Everything that follows from a change of a running workload's leases: ports, record, names."""
    if not hall.networks.republish(live.id):
        try:
            publishing.publish(hall, live.record)
        except BothyError as exc:
            _log.warning("the ports of %s are not published: %s", live.record.name, exc)
    hall.workloads.amend(
        live,
        networking=networking,
        endpoints=[network.endpoint(lease) for lease in hall.networks.leases_of(live.id)],
        ports=publishing.current(hall, live.id),
    )
    hall.networks.attached(live.id)
    network.tell_names(hall, live.record)
