"""A workload's places on its networks, and the small files by which it finds names: resolv.conf, hosts, hostname."""

from __future__ import annotations

import contextlib

from bothy.engine import spec
from bothy.engine.hall import Hall
from bothy.engine.model import Endpoint, EndpointConfig, Workload
from bothy.networks import names
from bothy.networks.model import Lease, way_out


def asked(record: Workload) -> dict[str, EndpointConfig]:
    """The networks that a workload is to be on, by name: the one of its network mode first. None with `none` and `host`."""
    mode = record.host_config.network_mode
    if mode in ("none", "host"):
        return {}
    wanted = {name: found or EndpointConfig() for name, found in record.networking.endpoints_config.items()}
    wanted.pop("default", None)
    return {mode: wanted.get(mode, EndpointConfig()), **wanted}


def take(hall: Hall, record: Workload, undo: contextlib.ExitStack) -> list[Lease]:
    """Addresses on all of them; `undo` gives them back. Raises NotFound, Conflict, Invalid, Unavailable."""
    undo.callback(hall.networks.release, record.id)
    return [_lease(hall, record, name, wanted) for name, wanted in asked(record).items()]


def _lease(hall: Hall, record: Workload, name: str, wanted: EndpointConfig) -> Lease:
    address = str((wanted.ipam_config or {}).get("IPv4Address") or "")
    mac = wanted.mac_address or (record.config.mac_address if name == record.host_config.network_mode else "")
    return hall.networks.lease(record.id, name, address=address, mac=mac, priority=wanted.gw_priority)


def endpoint(lease: Lease) -> Endpoint:
    """How a lease stands in the record."""
    return Endpoint(
        lease.network, lease.network_name, lease.address, lease.gateway, lease.mac,
        link=lease.link, interface=lease.interface, priority=lease.priority,
    )  # fmt: skip


def small_files(record: Workload, leases: list[Lease]) -> dict[str, str]:
    """Name to text. Raises Invalid for DNS servers and extra hosts that are none."""
    host = record.host_config
    own = spec.hostname(record)
    full = f"{own}.{record.config.domainname}" if record.config.domainname else own
    resolv = names.host_resolv_conf()
    if host.network_mode != "host" or host.dns or host.dns_search or host.dns_options:
        resolv = names.resolv_conf(resolv, servers=host.dns, search=host.dns_search, options=host.dns_options)
    if host.network_mode == "host":
        hosts = _host_hosts() + _extra(host.extra_hosts)
    else:
        own_names = [full, own] if full != own else [own]
        leading = way_out(leases)
        hosts = names.hosts([(lease.ip, own_names) for lease in leases], host.extra_hosts, leading.gateway if leading else "")
    return {"resolv.conf": resolv, "hosts": hosts, "hostname": own + "\n"}


def _host_hosts() -> str:
    try:
        with open("/etc/hosts", encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return names.hosts([])


def _extra(entries: list[str]) -> str:
    """What --add-host adds, without the lines that `names.hosts` has anyway."""
    return names.hosts([], entries, "127.0.0.1").removeprefix(names.hosts([]))
