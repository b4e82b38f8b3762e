"""commit: an image made of another image and what a workload has changed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import fields, replace
from typing import Any

from bothy.containers.visits.model import Request
from bothy.engine import merge
from bothy.engine.containers import stop
from bothy.engine.hall import Hall
from bothy.engine.heavy import heavy
from bothy.engine.model import Config, Status
from bothy.engine.visits import Visit
from bothy.engine.workloads import Live
from bothy.errors import BothyError, Conflict
from bothy.images.changes import apply as instruct
from bothy.images.committing import Commit, name_of
from bothy.images.model import Image
from bothy.jsonable import PLAIN
from bothy.oci.image import Healthcheck, ImageConfig

Enter = Callable[[], AbstractAsyncContextManager[Visit]]


async def commit(
    hall: Hall,
    live: Live,
    enter: Enter,
    request: Request,
    config: Config,
    *,
    name: str,
    comment: str,
    author: str,
    pause: bool,
    instructions: Sequence[str],
) -> str:
    """Make the image; its id. Raises Invalid, NotFound (the image that it was made of), Failed; then there is no image."""
    record = live.record
    parent = hall.images.resolve(record.image)
    asked = instruct(image_config(config), instructions)
    what = Commit(
        parent.id, merged(asked, image_config(record.config)), name, author, comment, " ".join([record.path, *record.args])
    )
    name_of(name)
    async with _standing_still(hall, live, wanted=pause), enter() as visit:
        found = await visit.begin(request)
        image = await _put(hall, visit, what, is_empty=found.get("changes") == 0)
    hall.tell(live.record, "commit", comment=comment, imageID=image.id, imageRef=next(iter(image.repo_tags), "") if name else "")
    return image.id


async def _put(hall: Hall, visit: Visit, what: Commit, *, is_empty: bool) -> Image:
    """Have the image store read the layer while the visit makes it."""
    if is_empty:
        async for _ in visit.data():
            pass
        return await heavy(hall.images.commit, what, -1)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        reading = asyncio.ensure_future(heavy(hall.images.commit, what, theirs.fileno()))
        try:
            await _pump(visit, ours, reading)
        except BaseException:
            ours.close()  # a layer that ends too early is none
            with contextlib.suppress(BothyError):
                await asyncio.shield(reading)
            raise
        ours.shutdown(socket.SHUT_WR)
        return await reading


async def _pump(visit: Visit, out: socket.socket, reading: asyncio.Future[Image]) -> None:
    loop = asyncio.get_running_loop()
    async for piece in visit.data():
        try:
            await loop.sock_sendall(out, piece)
        except OSError:
            await reading  # it knows why it reads no more
            raise


@contextlib.asynccontextmanager
async def _standing_still(hall: Hall, live: Live, *, wanted: bool) -> AsyncIterator[None]:
    """Paused, if it runs and is to be."""
    paused = wanted and live.record.status is Status.RUNNING
    if paused:
        await stop.pause(hall, live)
    try:
        yield
    finally:
        if paused:
            with contextlib.suppress(Conflict):  # it has ended, or somebody was quicker
                await stop.unpause(hall, live)


def image_config(config: Config) -> ImageConfig:
    """What of a workload's configuration an image has too."""
    health = config.healthcheck
    return ImageConfig(
        user=config.user,
        exposed_ports=config.exposed_ports,
        env=list(config.env),
        entrypoint=config.entrypoint,
        cmd=config.cmd,
        volumes=config.volumes,
        working_dir=config.working_dir,
        labels=config.labels,
        stop_signal=config.stop_signal,
        stop_timeout=config.stop_timeout,
        healthcheck=PLAIN.from_data(Healthcheck, PLAIN.to_data(health)) if health else None,
        shell=config.shell,
    )


def merged(asked: ImageConfig, workload: ImageConfig) -> ImageConfig:
    """What was asked for, and what the workload has where nothing was. Source: moby daemon/commit.go, merge."""
    values: dict[str, Any] = {f.name: getattr(asked, f.name) or getattr(workload, f.name) for f in fields(ImageConfig)}
    values["env"] = merge.merged_env(workload.env, asked.env)
    for name in ("labels", "exposed_ports", "volumes"):
        values[name] = {**getattr(workload, name), **getattr(asked, name)}
    if asked.entrypoint and not asked.cmd:
        values["cmd"] = None
    return replace(workload, **values)
