"""The engine's `volumes`: the room's, in threads where it takes time, with who uses what, in the API's shapes."""

from __future__ import annotations

from typing import Any

from bothy.engine import filters as matching
from bothy.engine.containers.remove import users_of
from bothy.engine.hall import Hall
from bothy.engine.heavy import heavy
from bothy.errors import NotFound

_Listing = list[dict[str, Any]]
_Words = list[str]


class Volumes:
    def __init__(self, hall: Hall) -> None:
        self._hall = hall

    async def list(self, filters: matching.Filters) -> _Listing:
        """Volumes that match Docker's filters. Raises Invalid."""
        matching.check(filters, ("dangling", "driver", "label", "name"))
        dangling = matching.truth(filters, "dangling")
        return [
            volume.to_api()
            for volume in self._hall.volumes.list()
            if matching.labels_match(filters, volume.labels)
            and (not filters.get("driver") or volume.driver in filters["driver"])
            and (not filters.get("name") or matching.pattern_matches(filters["name"], volume.name))
            and (dangling is None or dangling == (not users_of(self._hall, volume.name)))
        ]

    async def get(self, name: str) -> dict[str, Any]:
        return self._hall.volumes.get(name).to_api()

    async def create(self, name: str, labels: dict[str, str], options: dict[str, str]) -> dict[str, Any]:
        """A new volume, or the one of that name. Raises Invalid, Conflict."""
        is_new = True
        if name:
            try:
                self._hall.volumes.get(name)
                is_new = False
            except NotFound:
                pass
        volume = await heavy(self._hall.volumes.create, name, labels=labels, options=options)
        if is_new:
            self._hall.events.publish("volume", "create", volume.name, {"driver": volume.driver})
        return volume.to_api()

    async def remove(self, name: str, *, force: bool) -> None:
        """Raises NotFound, Conflict while a workload has it."""
        await heavy(self._hall.volumes.remove, name, users_of(self._hall, name), force=force)
        self._hall.events.publish("volume", "destroy", name, {"driver": "local"})

    async def prune(self, filters: matching.Filters) -> tuple[_Words, int]:
        """Remove the anonymous volumes that nobody has, with `all=true` named ones too. Returns names and bytes.

        Filters: all, label, label!. Raises Invalid for others.
        """
        matching.check(filters, ("all", "label", "label!"))
        used = {m.name for live in self._hall.workloads for m in live.record.mounts if m.type == "volume"}
        kept = {v.name for v in self._hall.volumes.list() if not matching.labels_match(filters, v.labels)}
        named = matching.truth(filters, "all") is True
        names, freed = await heavy(self._hall.volumes.prune, used | kept, named=named)
        for name in names:
            self._hall.events.publish("volume", "destroy", name, {"driver": "local"})
        self._hall.events.publish("volume", "prune", "", {"reclaimed": str(freed)})
        return list(names), freed
