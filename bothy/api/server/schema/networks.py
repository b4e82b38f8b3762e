"""Networks in the Docker Engine API's shapes. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bothy.api.server.schema import values
from bothy.engine.model import Endpoint, PublishedPort, Workload
from bothy.networks.model import Network


def network(found: Network, attached: Iterable[Workload] = ()) -> dict[str, Any]:
    """`GET /networks/{id}`, and an entry of `GET /networks` (which lists nobody under Containers)."""
    return {
        "Name": found.name,
        "Id": found.id,
        "Created": found.created,
        "Scope": "local",
        "Driver": found.driver,
        "EnableIPv4": True,
        "EnableIPv6": bool(found.subnet6),
        "IPAM": {"Driver": "default", "Options": found.ipam_options or None, "Config": _pools(found)},
        "Internal": found.internal,
        "Attachable": found.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {w.id: _member(w, end) for w in attached for end in w.endpoints if end.network == found.id},
        "Options": {**_default_options(found), **found.options},
        "Labels": found.labels,
    }


def _default_options(found: Network) -> dict[str, str]:
    """What the default bridge network is, in the words by which clients know it."""
    if found.name != "bridge":
        return {}
    prefix = "com.docker.network.bridge"
    told = {"default_bridge": "true", "enable_icc": "true", "enable_ip_masquerade": "true", "name": found.bridge}
    return {f"{prefix}.{key}": value for key, value in told.items()}


def _pools(found: Network) -> list[dict[str, Any]]:
    pools = []
    for version, subnet, ip_range, gateway in (
        (4, found.subnet, found.ip_range, found.gateway),
        (6, found.subnet6, found.ip_range6, found.gateway6),
    ):
        if subnet:
            auxiliary = {name: address for name, address in found.auxiliary.items() if (":" in address) == (version == 6)}
            pool = {"Subnet": subnet, "IPRange": ip_range, "Gateway": gateway, "AuxiliaryAddresses": auxiliary}
            pools.append({key: value for key, value in pool.items() if value})
    return pools


def _member(workload: Workload, endpoint: Endpoint) -> dict[str, Any]:
    return {
        "Name": workload.name,
        "EndpointID": values.endpoint_id(workload.id, endpoint.network),
        "MacAddress": endpoint.mac,
        "IPv4Address": endpoint.address,
        "IPv6Address": endpoint.address6,
    }


def port(published: PublishedPort) -> dict[str, Any]:
    """A port as `GET /containers/json` tells it."""
    return {
        "IP": published.host_ip,
        "PrivatePort": published.container_port,
        "PublicPort": published.host_port,
        "Type": published.protocol,
    }
