"""Small values as Docker writes them: empty times, durations for people, unix times, networks' endpoints."""

from __future__ import annotations

import hashlib
from typing import Any

from bothy.engine import times
from bothy.engine.model import Endpoint, EndpointConfig, Workload

NEVER = times.NEVER
MINUTE, HOUR, DAY = 60, 3600, 86400


def moment(text: str) -> str:
    """A time, or Docker's zero time."""
    return text or NEVER


def unix(text: str) -> int:
    """Seconds since the epoch; 0 for no time."""
    return times.nanoseconds(text) // 1_000_000_000 if text else 0


def duration(seconds: float) -> str:
    """A duration for people. Source: docker/go-units, HumanDuration."""
    s = int(seconds)
    m, h = s // MINUTE, int(seconds / HOUR + 0.5)
    steps = (
        (s < 1, "Less than a second"),
        (s == 1, "1 second"),
        (s < MINUTE, f"{s} seconds"),
        (m == 1, "About a minute"),
        (m < 60, f"{m} minutes"),
        (h == 1, "About an hour"),
        (h < 48, f"{h} hours"),
        (h < 24 * 14, f"{h // 24} days"),
        (h < 24 * 60, f"{h // 168} weeks"),
        (h < 24 * 730, f"{h // 720} months"),
        (True, f"{s // DAY // 365} years"),
    )
    return next(words for fits, words in steps if fits)


def endpoint_id(workload: str, network: str) -> str:
    """A stable id for what has none of its own here."""
    return hashlib.sha256(f"{workload} {network}".encode()).hexdigest()


def endpoint(workload: Workload, found: Endpoint) -> dict[str, Any]:
    """EndpointSettings of an attachment; addresses only while the workload is up."""
    data = asked_endpoint(workload.networking.endpoints_config.get(found.network_name))
    # Docker's default bridge has no names; here they are found there too
    data["DNSNames"] = workload.dns_names(found.network_name) if found.address else None
    data["NetworkID"] = found.network
    if workload.status.is_up:
        data["MacAddress"] = found.mac
        data["EndpointID"] = endpoint_id(workload.id, found.network)
        data["Gateway"], data["IPv6Gateway"] = found.gateway, found.gateway6
        data["IPAddress"], _, prefix = found.address.partition("/")
        data["IPPrefixLen"] = int(prefix or 0)
        data["GlobalIPv6Address"], _, prefix = found.address6.partition("/")
        data["GlobalIPv6PrefixLen"] = int(prefix or 0)
    return data


def asked_endpoint(asked: EndpointConfig | None) -> dict[str, Any]:
    """EndpointSettings of an attachment that does not exist (yet)."""
    asked = asked or EndpointConfig()
    return {
        "IPAMConfig": asked.ipam_config or None,
        "Links": asked.links or None,
        "Aliases": asked.aliases or None,
        "MacAddress": asked.mac_address,
        "DriverOpts": asked.driver_opts or None,
        "GwPriority": asked.gw_priority,
        "NetworkID": asked.network_id,
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None,
    }


def networks(workload: Workload) -> dict[str, Any]:
    """NetworkSettings.Networks: what is attached, and what is asked for and not attached yet."""
    found: dict[str, Any] = {e.network_name: endpoint(workload, e) for e in workload.endpoints}
    for name, asked in workload.networking.endpoints_config.items():
        found.setdefault("bridge" if name == "default" else name, asked_endpoint(asked))
    return found


def network_mode(workload: Workload) -> str:
    """HostConfig.NetworkMode with the default's name."""
    mode = workload.host_config.network_mode
    return "bridge" if mode in ("", "default") else mode
