"""The engine's `networks`: listed, made, removed, and the workloads on them changed; our rules in the kernel looked after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from bothy.engine import filters as matching
from bothy.engine import times
from bothy.engine.containers import connecting
from bothy.engine.hall import Hall
from bothy.engine.model import EndpointConfig, Workload
from bothy.errors import BothyError, Forbidden, NotFound, Unavailable
from bothy.log import logger
from bothy.networks import doctor
from bothy.networks.catalog import BUILT_IN, DEFAULT
from bothy.networks.model import Network, NetworkRequest

_log = logger("engine")
_SETTLING = 1.0  # seconds: whoever changes a firewall seldom does it in one step
_Networks = list[Network]
_Workloads = list[Workload]
_Words = list[str]
Created = tuple[Network, list[str]]


class Networks:
    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        self._due: asyncio.TimerHandle | None = None
        self._watched = -1

    async def list(self, filters: matching.Filters) -> _Networks:
        """Networks that match Docker's filters. Raises Invalid."""
        matching.check(filters, ("dangling", "driver", "id", "label", "name", "scope", "type"))
        dangling = matching.truth(filters, "dangling")
        used = {lease.network for lease in self._hall.networks.leases()}
        return [
            network
            for network in self._hall.networks.list()
            if matching.labels_match(filters, network.labels)
            and (not filters.get("driver") or network.driver in filters["driver"])
            and (not filters.get("id") or any(network.id.startswith(v) for v in filters["id"]))
            and (not filters.get("name") or matching.pattern_matches(filters["name"], network.name))
            and (not filters.get("scope") or "local" in filters["scope"])
            and (not filters.get("type") or ("builtin" if network.name in BUILT_IN else "custom") in filters["type"])
            and (dangling is None or dangling == (network.id not in used and network.name not in BUILT_IN))
        ]

    async def get(self, ref: str) -> Network:
        """A network. Raises NotFound, Invalid. The default one has its subnet from the first look at it on."""
        found = self._hall.networks.get(ref)
        return self._hall.networks.ensure_default() if found.name == DEFAULT and not found.subnet else found

    def members(self, found: Network) -> _Workloads:
        """The running workloads that are on a network."""
        return [
            live.record
            for live in self._hall.workloads
            if live.record.status.is_up and any(e.network == found.id for e in live.record.endpoints)
        ]

    async def create(self, request: NetworkRequest) -> Created:
        """A new network, and warnings. Raises Conflict, Invalid, Forbidden, Unsupported, Unavailable; then nothing is left."""
        made = self._hall.networks.create(request)
        self._tell("create", made)
        warnings = []
        if request.internal and made.settings.host_binding:
            warnings.append("ports of workloads on an internal network are not published")
        return made, warnings

    async def remove(self, ref: str) -> None:
        """Raises NotFound, Forbidden for a built-in one and while workloads that run are on it."""
        found = self._hall.networks.get(ref)
        members = self.members(found)
        if members and found.name not in BUILT_IN:
            named = ", ".join(f'name:"{w.name}" id:"{w.id[:12]}"' for w in members)
            raise Forbidden(
                f"error while removing network: network {found.name} has active endpoints ({named})",
                hint="bothy network disconnect takes them off it",
            )
        self._hall.networks.remove(found.id)
        self._tell("destroy", found)

    async def prune(self, filters: matching.Filters) -> _Words:
        """Remove the networks that no workload has, running or not; their names. Raises Invalid."""
        matching.check(filters, ("label", "label!", "until"))
        before = min((times.instant(text) for text in filters.get("until", ())), default=0)
        records = [live.record for live in self._hall.workloads]
        wanted = {name for record in records for name in record.networking.endpoints_config}
        removed = []
        for found in self._hall.networks.list():
            if found.name in BUILT_IN or found.name in wanted or not matching.labels_match(filters, found.labels):
                continue
            if before and times.nanoseconds(found.created) > before:
                continue
            try:
                await self.remove(found.id)
            except (Forbidden, NotFound):
                continue
            removed.append(found.name)
        self._hall.events.publish("network", "prune", "", {"reclaimed": "0"})
        return removed

    async def connect(self, ref: str, workload: str, wanted: EndpointConfig) -> None:
        """Raises NotFound, Forbidden, Invalid, Conflict; see `connecting.connect`."""
        found = self._hall.networks.get(ref)
        await connecting.connect(self._hall, self._hall.workloads.find(workload), found, wanted)

    async def disconnect(self, ref: str, workload: str, *, force: bool) -> None:
        """Raises NotFound, Forbidden, Invalid; see `connecting.disconnect`."""
        found = self._hall.networks.get(ref)
        await connecting.disconnect(self._hall, self._hall.workloads.find(workload), found, force=force)

    async def examine(self) -> dict[str, Any]:
        """What is reachable from where, and what is wrong (`bothy network doctor`)."""
        names = {live.id: live.record.name for live in self._hall.workloads}
        return doctor.report(self._hall.networks.examine(), names)

    def _tell(self, action: str, found: Network) -> None:
        self._hall.events.publish("network", action, found.id, {"name": found.name, "type": found.driver})

    # -- the kernel's side

    def watch(self) -> None:
        """From now on make good what others do to our rules (a flushed table, a FORWARD chain that drops). Ends with `unwatch`.

        Where the kernel has no nftables there are no rules of ours either; that is logged, and workloads may do without a network.
        """
        try:
            self._watched = self._hall.networks.watch()
        except Unavailable as exc:
            _log.warning("%s: only networks none and host can be used", exc.message)
            return
        asyncio.get_running_loop().add_reader(self._watched, self._changed)

    def unwatch(self) -> None:
        """Before the rooms are closed."""
        if self._watched >= 0:
            asyncio.get_running_loop().remove_reader(self._watched)
        if self._due is not None:
            self._due.cancel()

    def _changed(self) -> None:
        if self._hall.networks.disturbed() and self._due is None:
            self._repair(self._hall.networks.mend)  # each moment without our rules is one without published ports and names
            self._due = asyncio.get_running_loop().call_later(_SETTLING, self._settled)

    def _settled(self) -> None:
        self._due = None
        self._repair(self._hall.networks.reconcile)

    def _repair(self, how: Callable[[], None]) -> None:
        try:
            how()
        except (BothyError, OSError) as exc:
            _log.error("the network rules could not be repaired: %s", exc)
