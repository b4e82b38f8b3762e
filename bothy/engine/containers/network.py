"""The small files by which a workload finds names: resolv.conf, hosts, hostname; by network mode, as Docker has them."""

from __future__ import annotations

from bothy.engine import spec
from bothy.engine.model import Workload
from bothy.networks import names
from bothy.networks.model import Lease


def small_files(record: Workload, lease: Lease | None) -> dict[str, str]:
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
        addresses = [(lease.ip, own_names)] if lease else []
        hosts = names.hosts(addresses, host.extra_hosts, lease.gateway if lease else "")
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
