"""Network interfaces as data. The functions that make and configure them follow the same rules as all of this room:
names of the man pages, errors are OSErrors, no policy.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Route:
    """`destination` in CIDR form or `default`; `gateway` empty for a route on the link."""

    destination: str
    gateway: str = ""


@dataclass(frozen=True)
class Interface:
    """How an interface looks from inside a workload. Addresses in CIDR form (`172.30.0.2/16`)."""

    name: str
    mac: str
    addresses: list[str]
    routes: list[Route] = field(default_factory=list)
    mtu: int = 1500
