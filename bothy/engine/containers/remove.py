"""rm and prune: out of sight first (one rename), then the record, then what takes long.

    running and force: killed ─▶ folder renamed away ─▶ volumes ─▶ record deleted ─▶ folder emptied

Killed in between, recovery finds either a record whose folder was renamed (and removes it) or a renamed folder without one.
"""

from __future__ import annotations

import asyncio
import os

from bothy.engine import filters as matching
from bothy.engine import trees
from bothy.engine.containers import ending, stop
from bothy.engine.hall import Hall
from bothy.engine.model import Status
from bothy.engine.workloads import Live
from bothy.errors import BothyError, Conflict, NotFound
from bothy.log import logger
from bothy.volumes.model import ANONYMOUS

_log = logger("engine")


async def remove(hall: Hall, live: Live, *, force: bool, volumes: bool) -> None:
    """Remove it with all that it wrote, with `volumes` its anonymous volumes too.

    Raises Conflict when it runs and not `force`, NotFound when somebody else was quicker.
    """
    if not force:
        _check_down(live)
    while True:
        if force:
            await stop.end(hall, live)
        async with live.lock:
            if live.removed and force:
                return  # it was removed at its end, which this has brought about
            if live.removed:
                raise NotFound(f"No such container: {live.id}")
            if live.record.status.is_up:
                if force:
                    continue  # started again just now
                _check_down(live)
            await _remove(hall, live, volumes=volumes)
            return


async def auto_remove(hall: Hall, live: Live) -> None:
    """What `--rm` asks for at the end of a run."""
    async with live.lock:
        if not live.removed and not live.record.status.is_up:
            await _remove(hall, live, volumes=True)


def _check_down(live: Live) -> None:
    record = live.record
    if record.status.is_up:
        hint = (
            "unpause and then stop the container"
            if record.status is Status.PAUSED
            else "stop the container before removing or force remove"
        )
        raise Conflict(f'cannot remove container "/{record.name}": container is {record.status}', hint=hint)


async def _remove(hall: Hall, live: Live, *, volumes: bool) -> None:
    """`remove` with the lock held and the workload down."""
    ending.cancel_restart(live)
    await ending.settle(live)
    record = live.record
    live.drop_held()
    hall.spares.forget(live.id)
    trash = trees.discard(str(hall.paths.container(live.id)))
    if volumes:
        await _remove_volumes(hall, live)
    hall.workloads.forget(live)
    hall.execs.forget(live.id)
    hall.tell(record, "destroy")
    live.tell(live.last_exit(), "removed", "not-running", "next-exit")
    if trash:
        # After the answer: whoever asked need not wait for what can not be seen any more.
        hall.background(trees.empty(trash), f"the deletion of {trash}")


async def _remove_volumes(hall: Hall, live: Live) -> None:
    """The anonymous volumes that nobody else has."""
    for mount in live.record.mounts:
        if mount.type != "volume":
            continue
        try:
            if ANONYMOUS not in hall.volumes.get(mount.name).labels or users_of(hall, mount.name) != [live.id]:
                continue
            await asyncio.to_thread(hall.volumes.remove, mount.name)
            hall.events.publish("volume", "destroy", mount.name, {"driver": "local"})
        except NotFound:
            continue
        except (BothyError, OSError) as exc:
            _log.error("volume %s of %s is left: %s", mount.name, live.id[:12], exc)


def users_of(hall: Hall, volume: str) -> list[str]:
    """The ids of the workloads that have a volume, running or not."""
    return [live.id for live in hall.workloads if any(m.type == "volume" and m.name == volume for m in live.record.mounts)]


async def prune(hall: Hall, filters: matching.Filters) -> tuple[list[str], int]:
    """Remove what does not run; the ids and the bytes freed. Filters: label, label!, until. Raises Invalid for others."""
    matching.check(filters, ("label", "label!", "until"))
    limit = matching.bound(filters)
    removed, freed = [], 0
    for live in hall.workloads:
        record = live.record
        if record.status not in (Status.CREATED, Status.EXITED, Status.DEAD):
            continue
        if not matching.labels_match(filters, record.config.labels) or not matching.is_older(record.created, limit):
            continue
        size = await asyncio.to_thread(written, str(hall.paths.container(record.id)))
        try:
            await remove(hall, live, force=False, volumes=False)
        except (Conflict, NotFound):
            continue
        removed.append(record.id)
        freed += size
    hall.events.publish("container", "prune", "", {"reclaimed": str(freed)})
    return removed, freed


def written(folder: str) -> int:
    """Bytes on disk of a file, or of what is below a folder; links are not followed."""
    if os.path.isdir(folder) or not os.path.exists(folder):
        return trees.size(folder)
    return os.lstat(folder).st_blocks * 512
