"""Files of a volume, from outside: what `volume cp` reads and writes, whether a workload has the volume or not.

A visit (`bothy.containers.visits`) whose whole world is the volume does it: links in the volume never lead out of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator

from bothy.containers.model import ContainerPlan, Rootfs
from bothy.containers.visits import model
from bothy.containers.visits.model import Place, Request
from bothy.engine.found import read_status
from bothy.engine.hall import Hall
from bothy.engine.inflating import plain
from bothy.engine.model import FileStatus
from bothy.engine.visits import Failed, Visit, translated
from bothy.errors import NotFound
from bothy.oci.runtime import Process, Root, Spec


class VolumeFiles:
    """The engine's `volume_files`: by the names of volumes, with the methods of `bothy.engine.files.Files`."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall

    async def status(self, ref: str, path: str) -> FileStatus:
        """What is at a path. Raises NotFound (volume, path)."""
        async with _told(ref, path), self._visit(ref) as visit:
            return read_status(await visit.begin(Request(model.STAT, path)))

    @contextlib.asynccontextmanager
    async def archive(self, ref: str, path: str, *, shown: str = "") -> AsyncIterator[tuple[FileStatus, AsyncIterator[bytes]]]:
        """What is at a path, and the tar of it (in which it is called `shown`) in pieces. Raises NotFound; iterating raises what
        breaks off."""
        async with _told(ref, path), self._visit(ref) as visit:
            yield read_status(await visit.begin(Request(model.GET, path, shown=shown))), visit.data()

    async def extract(
        self, ref: str, path: str, archive: AsyncIterator[bytes], *, strict: bool = False, as_user: bool = False
    ) -> None:
        """Unpack a tar, compressed or not, into a folder. `strict`: no folder takes the place of another kind of file.

        `as_user` means nothing: a volume has no user. Raises NotFound (no such folder), Invalid (a bad archive, no folder),
        Unavailable (disk full, also by its quota); what is there by then stays.
        """
        del as_user
        async with _told(ref, path), self._visit(ref) as visit:
            await visit.begin(Request(model.PUT, path, strict=strict))
            async with contextlib.aclosing(plain(archive)) as pieces:
                await visit.put(pieces)

    @contextlib.asynccontextmanager
    async def _visit(self, name: str) -> AsyncIterator[Visit]:
        hall = self._hall
        volume = hall.volumes.get(name)
        hold = await asyncio.to_thread(hall.volumes.mounts.acquire, volume) if volume.is_mounted else None
        try:
            await hall.spawner.ready()
            sock, born = hall.spawner.visit(0)
            visit = Visit(sock, _place(volume.mountpoint), lambda: hall.spawner.leave(born))
            try:
                yield visit
            finally:
                visit.close()
        finally:
            if hold is not None:
                hall.background(asyncio.to_thread(hall.volumes.mounts.release, hold), f"unmounting volume {name}")


def _place(folder: str) -> Place:
    """A visit whose root is a folder of the host."""
    return Place(model.FOLDER, ContainerPlan("", Spec(Process([]), Root(folder)), Rootfs(folder, [], folder, "")), "")


@contextlib.asynccontextmanager
async def _told(name: str, path: str) -> AsyncIterator[None]:
    """What a visit says went wrong, in the engine's words."""
    try:
        yield
    except Failed as exc:
        if exc.stage == "visit" and exc.errno == errno.ENOENT:
            raise NotFound(f"Could not find the file {path} in volume {name}", errno=exc.errno) from None
        raise translated(exc, path, name, lambda _: f"volume {name} is read-only") from None
