"""Networks in the Docker Engine API's shapes. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bothy.api.server.schema import values
from bothy.engine.model import Endpoint, Workload
from bothy.networks.model import Network


def network(found: Network, attached: Iterable[Workload] = ()) -> dict[str, Any]:
    """`GET /networks/{id}`, and an entry of `GET /networks` (which lists nobody under Containers)."""
    ipam = [{"Subnet": found.subnet, "Gateway": found.gateway}] if found.subnet else []
    return {
        "Name": found.name,
        "Id": found.id,
        "Created": found.created,
        "Scope": "local",
        "Driver": found.driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": ipam},
        "Internal": found.internal,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {w.id: _member(w, end) for w in attached for end in w.endpoints if end.network == found.id},
        "Options": found.options,
        "Labels": found.labels,
    }


def _member(workload: Workload, endpoint: Endpoint) -> dict[str, Any]:
    return {
        "Name": workload.name,
        "EndpointID": values.endpoint_id(workload.id, endpoint.network),
        "MacAddress": endpoint.mac,
        "IPv4Address": endpoint.address,
        "IPv6Address": "",
    }
