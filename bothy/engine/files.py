"""Files of a workload, from outside: cp both ways, export, diff, commit; in every state, over both walls.

    container   runs: a visit in its mounts │ does not: a visit in a root of its own, mounted as a start would
    machine     runs: a visit in its guest  │ does not: a clone of its template with its disk and no program

Reading what does not run changes nothing on its disk and keeps nobody waiting. Writing to it holds its lock.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Sequence

from bothy.containers import defaults
from bothy.containers.visits import model
from bothy.containers.visits.model import Place, Request
from bothy.engine import spec
from bothy.engine.committing import commit
from bothy.engine.containers import mounting, plans
from bothy.engine.found import read_changes, read_status
from bothy.engine.hall import Hall
from bothy.engine.inflating import plain
from bothy.engine.machine_visits import of_running, of_stopped
from bothy.engine.model import Change, Config, FileStatus, Status, Wall, Workload
from bothy.engine.visits import Failed, Visit, translated
from bothy.engine.workloads import Live
from bothy.errors import Conflict, Unavailable

_MOUNTED = (model.COPY, model.DISK)
_SKIPPED = ["/dev", "/proc", "/sys"]
_SMALL = [f"/etc/{name}" for name in (*spec.FILES, "machine-id")]


class Files:
    """The engine's `files`. References are ids, beginnings of ids, or names."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall

    async def status(self, ref: str, path: str) -> FileStatus:
        """What is at a path. Raises NotFound, Conflict."""
        live = self._hall.workloads.find(ref)
        async with _told(live, ref, path), self._visit(live, model.COPY) as visit:
            return read_status(await visit.begin(Request(model.STAT, path)))

    @contextlib.asynccontextmanager
    async def archive(self, ref: str, path: str, *, shown: str = "") -> AsyncIterator[tuple[FileStatus, AsyncIterator[bytes]]]:
        """What is at a path, and the tar of it in pieces, in which it is called `shown`, if that is not empty. Raises NotFound,
        Conflict; iterating raises what breaks off."""
        live = self._hall.workloads.find(ref)
        async with _told(live, ref, path), self._visit(live, model.COPY) as visit:
            found = read_status(await visit.begin(Request(model.GET, path, skipped=_SKIPPED, shown=shown)))
            self._hall.tell(live.record, "archive-path")
            yield found, visit.data()

    async def extract(
        self, ref: str, path: str, archive: AsyncIterator[bytes], *, strict: bool = False, as_user: bool = False
    ) -> None:
        """Unpack a tar, compressed or not, into a folder. `strict`: no folder takes the place of another kind of file, or the other
        way round.

        `as_user`: all of it belongs to the workload's user. Raises NotFound (no such folder), Invalid (a bad archive, no folder),
        Forbidden (read-only), Unavailable (disk full); what is there by then stays.
        """
        live = self._hall.workloads.find(ref)
        user = live.record.config.user if as_user else ""
        async with _told(live, ref, path), self._visit(live, model.DISK) as visit:
            await visit.begin(Request(model.PUT, path, user=user, strict=strict))
            async with contextlib.aclosing(plain(archive)) as pieces:
                await visit.put(pieces)
        self._hall.tell(live.record, "extract-to-dir")

    @contextlib.asynccontextmanager
    async def export(self, ref: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The tar of the whole root file system, without what is mounted in it, in pieces."""
        live = self._hall.workloads.find(ref)
        async with _told(live, ref, "/"), self._visit(live, model.BARE) as visit:
            await visit.begin(Request(model.EXPORT))
            self._hall.tell(live.record, "export")
            yield visit.data()

    async def changes(self, ref: str) -> list[Change]:
        """What it has changed in its root, sorted by path, folders before what is in them."""
        live = self._hall.workloads.find(ref)
        async with _told(live, ref, "/"), self._visit(live, model.LAYERS) as visit:
            await visit.begin(Request(model.CHANGES, own=_own(live.record)))
            return await read_changes(visit.data())

    async def commit(
        self, ref: str, config: Config, *, name: str, comment: str, author: str, pause: bool, instructions: Sequence[str]
    ) -> str:
        """An image of a workload as it is, with one more layer; its id. With `pause` it stands still meanwhile, if it runs.

        Raises Invalid (name, instructions), Conflict; then there is no image.
        """
        live = self._hall.workloads.find(ref)
        request = Request(model.LAYER, own=_own(live.record))
        _check(live.record)
        async with _told(live, ref, "/"):
            return await commit(
                self._hall, live, lambda: self._visit(live, model.LAYERS), request, config,
                name=name, comment=comment, author=author, pause=pause, instructions=instructions,
            )  # fmt: skip

    # Visits

    @contextlib.asynccontextmanager
    async def _visit(self, live: Live, view: str) -> AsyncIterator[Visit]:
        """A visit with that view of the workload: the live one where it runs and the view is one of its mounts."""
        if live.record.status is Status.STARTING:
            async with live.lock:
                pass
        _check(live.record)
        is_machine = live.record.wall is Wall.VM
        if not _runs(live):
            if view != model.DISK and not is_machine:
                async with self._of_container(live, view) as visit:
                    yield visit
                return
            async with live.lock:
                _check(live.record)
                if not _runs(live):
                    down = (
                        of_stopped(self._hall, live, to_write=view == model.DISK) if is_machine else self._of_container(live, view)
                    )
                    async with down as visit:
                        live.lock.visit = visit
                        try:
                            yield visit
                        finally:
                            live.lock.visit = None
                    return
        up = of_running(live) if is_machine else self._of_container(live, model.LIVE if view in _MOUNTED else view)
        async with up as visit:
            yield visit

    @contextlib.asynccontextmanager
    async def _of_container(self, live: Live, view: str) -> AsyncIterator[Visit]:
        hall = self._hall
        async with contextlib.AsyncExitStack() as stack:
            if view in _MOUNTED:
                await stack.enter_async_context(mounting.held(hall, live.record))
            place, taken = await self._place(live, view)
            try:
                await hall.spawner.ready()
                sock, born = hall.spawner.visit(taken)
                visit = Visit(sock, place, lambda: hall.spawner.leave(born))
                if view == model.LIVE:
                    live.visits.add(visit)
                try:
                    yield visit
                finally:
                    live.visits.discard(visit)
                    visit.close()
            finally:
                hall.ranges.give_back(taken)

    async def _place(self, live: Live, view: str) -> tuple[Place, int]:
        """Where a visit of a container goes, and the id range that was taken for it (0: none)."""
        hall, record = self._hall, live.record
        if view == model.LIVE:
            plan = spec.container_plan(record, hall.paths, spec.Place(), hall.settings.shm_size)
            return Place(view, plan, str(hall.paths.run), record.pid, record.id_base), 0
        folder = hall.paths.container(live.id)
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            for name in ("upper", "work"):
                os.makedirs(folder / name, mode=0o755, exist_ok=True)
        except OSError as exc:
            raise Unavailable(f"{exc.filename or folder}: {exc.strerror}", errno=exc.errno or 0) from exc
        lowers = hall.images.layers(hall.images.resolve(record.image))
        inside = spec.Place(lowers=lowers, images=plans.mounted_images(hall, record))
        plan = spec.container_plan(record, hall.paths, inside, hall.settings.shm_size)
        taken = hall.spawner.take_range()
        return Place(view, plan, str(hall.paths.run), id_base=taken), taken


@contextlib.asynccontextmanager
async def _told(live: Live, ref: str, path: str) -> AsyncIterator[None]:
    """What a visit says went wrong, in the engine's words."""

    def readonly(place: str) -> str:
        inside = [m for m in live.record.mounts if place == m.destination or place.startswith(m.destination + "/")]
        return "mounted volume is marked read-only" if inside else "container rootfs is marked read-only"

    try:
        yield
    except Failed as exc:
        raise translated(exc, path, ref, readonly) from None


def _runs(live: Live) -> bool:
    return live.record.status.can_signal and bool(live.record.pid)


def _check(record: Workload) -> None:
    if record.status in (Status.REMOVING, Status.DEAD):
        raise Conflict(f"container {record.name} is being removed")


def _own(record: Workload) -> list[str]:
    """Where we mount something in every workload: what is there for that is not of its making."""
    return [*(mount.destination for mount in defaults.mounts()), *_SMALL]
