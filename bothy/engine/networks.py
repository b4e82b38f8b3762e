"""The engine's `networks`: what there is to look at. Making networks of one's own is a later matter."""

from __future__ import annotations

import asyncio

from bothy.engine import filters as matching
from bothy.engine.hall import Hall
from bothy.errors import BothyError
from bothy.log import logger
from bothy.networks.model import Network

_log = logger("engine")
_SETTLING = 1.0  # seconds: whoever changes a firewall seldom does it in one step
_Networks = list[Network]


class Networks:
    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        self._due: asyncio.TimerHandle | None = None

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

    def watch(self) -> None:
        """From now on make good what others do to our rules (a flushed table, a FORWARD chain that drops). Ends with `unwatch`."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._hall.networks.watch(), self._changed)

    def unwatch(self) -> None:
        """Before the rooms are closed."""
        asyncio.get_running_loop().remove_reader(self._hall.networks.watch())
        if self._due is not None:
            self._due.cancel()

    def _changed(self) -> None:
        if self._hall.networks.disturbed() and self._due is None:
            self._due = asyncio.get_running_loop().call_later(_SETTLING, self._repair)

    def _repair(self) -> None:
        self._due = None
        try:
            self._hall.networks.reconcile()
        except (BothyError, OSError) as exc:
            _log.error("the network rules could not be repaired: %s", exc)

    async def get(self, ref: str) -> Network:
        return self._hall.networks.get(ref)
