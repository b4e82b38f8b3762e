"""The engine's `networks`: what there is to look at. Making networks of one's own is a later matter."""

from __future__ import annotations

from bothy.engine import filters as matching
from bothy.engine.hall import Hall
from bothy.networks.model import Network

_Networks = list[Network]


class Networks:
    def __init__(self, hall: Hall) -> None:
        self._hall = hall

    async def list(self, filters: matching.Filters) -> _Networks:
        """Networks that match Docker's filters. Raises Invalid."""
        matching.check(filters, ("dangling", "driver", "id", "label", "name", "scope", "type"))
        dangling = matching.truth(filters, "dangling")
        used = {lease.network for lease in self._hall.networks.leases()}
        built_in = ("bridge", "host", "none")
        return [
            network
            for network in self._hall.networks.list()
            if matching.labels_match(filters, network.labels)
            and (not filters.get("driver") or network.driver in filters["driver"])
            and (not filters.get("id") or any(network.id.startswith(v) for v in filters["id"]))
            and (not filters.get("name") or matching.pattern_matches(filters["name"], network.name))
            and (not filters.get("scope") or "local" in filters["scope"])
            and (not filters.get("type") or ("builtin" if network.name in built_in else "custom") in filters["type"])
            and (dangling is None or dangling == (network.id not in used and network.name not in built_in))
        ]

    async def get(self, ref: str) -> Network:
        return self._hall.networks.get(ref)
