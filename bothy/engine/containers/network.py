"""A workload's places on its networks: asked for, taken at a start, told to others; and the small files by which it finds names."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from bothy.engine import spec
from bothy.engine.containers import links
from bothy.engine.hall import Hall
from bothy.engine.model import Config, Endpoint, EndpointConfig, HostConfig, NetworkingConfig, Workload
from bothy.errors import Invalid
from bothy.log import logger
from bothy.machines.wire import CARDS
from bothy.networks import names, options
from bothy.networks.dns import table
from bothy.networks.model import Lease, Network, way_out

_log = logger("engine")


def normal(hall: Hall, config: Config, host: HostConfig, networking: NetworkingConfig) -> tuple[HostConfig, NetworkingConfig]:
    """Network mode and endpoints with the names and ids of the networks that there are, the one of the mode first.

    Raises NotFound, Invalid.
    """
    asked = {name: found or EndpointConfig() for name, found in networking.endpoints_config.items()}
    mode = "none" if config.network_disabled else host.network_mode
    if mode in ("", "default") or (mode == "bridge" and not {"bridge", "default"} & set(asked)):
        mode = next(iter(asked), "bridge")
    networks: dict[str, Network] = {}
    found: dict[str, EndpointConfig] = {}
    for ref in [mode, *asked]:
        network = hall.networks.get(ref)
        wanted = asked.get(ref) or found.get(network.name) or EndpointConfig()
        check_endpoint(network, wanted)
        networks[network.name] = network
        found[network.name] = replace(wanted, network_id=network.id)
    others = [name for name, network in networks.items() if network.driver != "bridge"]
    if others and len(found) > 1:
        pair = [*others, *(name for name in found if name not in others)][:2]
        raise Invalid(
            f"conflicting options: cannot attach both user-defined and non-user-defined network-modes: {' and '.join(pair)}"
        )
    return replace(host, network_mode=next(iter(networks))), NetworkingConfig(dict(found))


def check_endpoint(network: Network, wanted: EndpointConfig) -> None:
    """What can be seen to be impossible before a start. Raises Invalid."""
    for key, version in (("IPv4Address", 4), ("IPv6Address", 6)):
        text = static_address(wanted, key)
        if text and not names.is_address(text, version):
            raise Invalid(f"invalid endpoint settings:\ninvalid IPv{version} address: {text}")
        if text and network.driver != "bridge":
            raise Invalid("invalid endpoint settings:\nuser specified IP address is supported on user defined networks only")
    options.interface_name((wanted.driver_opts or {}).get(options.IFNAME, ""), options.IFNAME)


def check_cards(networking: NetworkingConfig) -> None:
    """Whether a machine can be on so many networks. Raises Invalid."""
    wanted = len(networking.endpoints_config)
    if wanted > CARDS:
        raise Invalid(f"a machine can be on {CARDS} networks at most, not on {wanted}: it has so many network cards")


def static_address(wanted: EndpointConfig, key: str) -> str:
    """The `IPv4Address` or `IPv6Address` that an endpoint is asked to have; empty for any."""
    return str((wanted.ipam_config or {}).get(key) or "")


def take(hall: Hall, record: Workload, undo: contextlib.ExitStack) -> list[Lease]:
    """Addresses on all of its networks; `undo` gives them back. Raises NotFound, Conflict, Invalid, Unavailable."""
    undo.callback(hall.networks.release, record.id)
    return [
        lease(hall, record, name, wanted or EndpointConfig())
        for name, wanted in record.networking.endpoints_config.items()
        if name not in ("host", "none")
    ]


def lease(hall: Hall, record: Workload, network: str, wanted: EndpointConfig) -> Lease:
    """A place on one network, as it is asked for. Raises NotFound, Conflict, Invalid, Unavailable."""
    config_mac = record.config.mac_address if network == record.host_config.network_mode else ""
    return hall.networks.lease(
        record.id,
        network,
        address=static_address(wanted, "IPv4Address"),
        address6=static_address(wanted, "IPv6Address"),
        mac=wanted.mac_address or config_mac,
        interface=(wanted.driver_opts or {}).get(options.IFNAME, ""),
        priority=wanted.gw_priority,
    )


def endpoints(hall: Hall, record: Workload, leases: list[Lease]) -> list[Endpoint]:
    """How its networks stand in the record while it runs."""
    mode = record.host_config.network_mode
    if mode in ("host", "none"):
        return [Endpoint(hall.networks.get(mode).id, mode, "", "", "")]
    return [endpoint(lease) for lease in leases]


def endpoint(lease: Lease) -> Endpoint:
    """How a lease stands in the record."""
    return Endpoint(
        lease.network, lease.network_name, lease.address, lease.gateway, lease.mac, link=lease.link, interface=lease.interface,
        priority=lease.priority, address6=lease.address6, gateway6=lease.gateway6, mtu=lease.mtu,
    )  # fmt: skip


def lease_of(record: Workload, found: Endpoint) -> Lease:
    """`endpoint`, the other way round."""
    return Lease(
        record.id, found.network, found.network_name, found.address, found.gateway, found.mac, "", found.link, found.mtu,
        found.interface, found.priority, found.address6, found.gateway6,
    )  # fmt: skip


def announce(hall: Hall, record: Workload, action: str, found: Endpoint) -> None:
    """The event of a workload that comes on a network (`connect`) or leaves it."""
    kind = {"host": "host", "none": "null"}.get(found.network_name, "bridge")
    hall.events.publish("network", action, found.network, {"container": record.id, "name": found.network_name, "type": kind})


def tell_names(hall: Hall, record: Workload) -> None:
    """Have the others on its networks find it by its names. What goes wrong is logged: it is no reason not to run."""
    told = [
        table.Endpoint(found.network, found.addresses, record.dns_names(found.network_name))
        for found in record.endpoints
        if found.address
    ]
    try:
        table.tell(hall.paths, record.id, told, record.host_config.dns)
    except OSError as exc:
        _log.error("the names of %s can not be told: %s", record.id[:12], exc)


def forget_names(hall: Hall, workload: str) -> None:
    """It is found no more. What goes wrong is logged."""
    try:
        table.forget(hall.paths, workload)
    except OSError as exc:
        _log.error("the names of %s can not be forgotten: %s", workload[:12], exc)


def small_files(hall: Hall, record: Workload, leases: list[Lease]) -> dict[str, str]:
    """Name to text. Raises Invalid for DNS servers and extra hosts that are none, Conflict for a link to what does not run."""
    host = record.host_config
    own = spec.hostname(record)
    resolv = names.host_resolv_conf(hall.settings.resolv_conf)
    if host.network_mode != "host" or host.dns or host.dns_search or host.dns_options:
        at = hall.networks.nameservers(record.id)
        resolv = names.resolv_conf(resolv, servers=host.dns, search=host.dns_search, options=host.dns_options, gateways=at)
    if host.network_mode == "host":
        hosts = _host_hosts() + _extra(host.extra_hosts)
    else:
        leading = way_out(leases)
        addresses = [(address, own_names(record)) for lease in leases for address in lease.addresses]
        addresses += links.lines(hall, record)
        hosts = names.hosts(addresses, host.extra_hosts, leading.gateway if leading else "")
    return {"resolv.conf": resolv, "hosts": hosts, "hostname": own + "\n"}


def own_names(record: Workload) -> list[str]:
    """What a workload calls itself: with its domain, if it has one, and without."""
    own = spec.hostname(record)
    return [f"{own}.{record.config.domainname}", own] if record.config.domainname else [own]


def _host_hosts() -> str:
    try:
        with open("/etc/hosts", encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return names.hosts([])


def _extra(entries: list[str]) -> str:
    """What --add-host adds, without the lines that `names.hosts` has anyway."""
    return names.hosts([], entries, "127.0.0.1").removeprefix(names.hosts([]))
