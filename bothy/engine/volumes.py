"""The engine's `volumes`: the room's, in threads where it takes time, with who uses what, in the API's shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from bothy.engine import filters as matching
from bothy.engine.containers.remove import users_of
from bothy.engine.hall import Hall
from bothy.engine.heavy import heavy
from bothy.engine.model import Status
from bothy.errors import Unavailable
from bothy.volumes import options as driver_options
from bothy.volumes.model import Snapshot

P = ParamSpec("P")
T = TypeVar("T")
_Listing = list[dict[str, Any]]
_Words = list[str]
_NOT_WRITING = (Status.PAUSED, Status.CREATED, Status.EXITED, Status.DEAD, Status.REMOVING)


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

    async def create(self, name: str, driver: str, labels: dict[str, str], options: dict[str, str]) -> dict[str, Any]:
        """A new volume, or the one of that name. Raises Invalid, NotFound (driver), Conflict, Unavailable (disk full)."""
        volume, is_new = await _made(self._hall.volumes.ensure, name, driver=driver, labels=labels, options=options)
        if is_new:
            self._tell("create", volume.name)
        return volume.to_api()

    async def remove(self, name: str, *, force: bool) -> None:
        """Raises NotFound, Conflict while a workload has it, or (unless `force`) it has snapshots."""
        await heavy(self._hall.volumes.remove, name, self._users(name), force=force)
        self._tell("destroy", name)

    async def prune(self, filters: matching.Filters) -> tuple[_Words, int]:
        """Remove the anonymous volumes that nobody has, with `all=true` named ones too; none with snapshots. Names and bytes.

        Filters: all, label, label!. Raises Invalid for others.
        """
        matching.check(filters, ("all", "label", "label!"))
        named = matching.truth(filters, "all") is True
        names, freed = await heavy(
            self._hall.volumes.prune,
            lambda name: users_of(self._hall, name),
            lambda volume: (named or volume.anonymous) and matching.labels_match(filters, volume.labels),
        )
        for name in names:
            self._tell("destroy", name)
        self._hall.events.publish("volume", "prune", "", {"reclaimed": str(freed)})
        return list(names), freed

    async def rename(self, name: str, new: str) -> dict[str, Any]:
        """Raises NotFound, Invalid, Conflict while a workload has it, or the new name is taken."""
        volume = await heavy(self._hall.volumes.rename, name, new, self._users(name))
        self._tell("rename", new, oldName=name)
        return volume.to_api()

    async def resize(self, name: str, size: str) -> dict[str, Any]:
        """Raises NotFound, Invalid, Conflict (in use, and the kernel does not grow what is)."""
        volume = await _made(self._hall.volumes.resize, name, driver_options.size_of(size))
        self._tell("resize", name, size=str(volume.size))
        return volume.to_api()

    async def clone(self, name: str, new: str, snapshot: str, labels: dict[str, str]) -> dict[str, Any]:
        """A new volume with what is in another, or in a snapshot of it. Raises NotFound, Invalid, Conflict, Unsupported,
        Unavailable (disk full); then there is none."""
        volume, atomic = await _made(self._hall.snapshots.clone, name, new, snapshot, labels, self._writers(name))
        self._tell("create", new, cloneOf=f"{name}@{snapshot}" if snapshot else name)
        return {**volume.to_api(), "Atomic": atomic}

    async def snapshots(self, name: str) -> _Listing:
        """Those of a volume, or of all. Takes as long as there are files. Raises NotFound."""
        return await heavy(lambda: [self._shown(snapshot) for snapshot in self._hall.snapshots.list(name)])

    async def snapshot(self, name: str, snapshot: str) -> dict[str, Any]:
        """Keep a volume as it is. Raises NotFound, Invalid, Conflict, Unsupported, Unavailable (disk full); then it is not kept."""
        taken = await _made(self._hall.snapshots.take, name, snapshot, self._writers(name))
        self._tell("snapshot", name, snapshot=taken.name)
        return await heavy(self._shown, taken)

    async def restore(self, name: str, snapshot: str) -> dict[str, Any]:
        """Make a volume what it was. Raises NotFound, Conflict while a workload that has it runs, Unavailable."""
        volume = await _made(self._hall.snapshots.restore, name, snapshot, self._running(name))
        self._tell("restore", name, snapshot=snapshot)
        return volume.to_api()

    async def remove_snapshot(self, name: str, snapshot: str) -> None:
        """Raises NotFound."""
        await heavy(self._hall.snapshots.remove, name, snapshot)

    def _shown(self, snapshot: Snapshot) -> dict[str, Any]:
        return snapshot.to_api(self._hall.snapshots.usage(snapshot))

    def _users(self, name: str) -> Callable[[], _Words]:
        return lambda: users_of(self._hall, name)

    def _running(self, name: str) -> Callable[[], _Words]:
        return lambda: [w for w in users_of(self._hall, name) if self._status(w).is_up]

    def _writers(self, name: str) -> Callable[[], _Words]:
        """Who may be writing to it now: not who is paused, and not who has it read-only."""
        return lambda: [
            live.id
            for live in self._hall.workloads
            if live.record.status not in _NOT_WRITING
            and any(m.type == "volume" and m.name == name and m.read_write for m in live.record.mounts)
        ]

    def _status(self, workload: str) -> Status:
        live = self._hall.workloads.by_id(workload)
        return live.record.status if live else Status.EXITED

    def _tell(self, action: str, name: str, **attributes: str) -> None:
        self._hall.events.publish("volume", action, name, {"driver": "local", **attributes})


async def _made(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`heavy` for what writes data to the volume named first: a disk that refuses is Unavailable."""
    try:
        return await heavy(work, *args, **kwargs)
    except OSError as exc:
        hint = "free some space on the disk that holds BOTHY_ROOT" if exc.errno == 28 else ""
        raise Unavailable(f"{args[0]}: {exc.strerror or exc}", errno=exc.errno or 0, hint=hint) from exc
