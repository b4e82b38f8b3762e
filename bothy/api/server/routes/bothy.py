"""/bothy: what Docker's API has no words for: machines' preparation and templates, making images, the daemon's end."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bothy.api.server import replies, streams
from bothy.api.server.backend import Progress
from bothy.api.server.call import Call
from bothy.errors import Invalid
from bothy.images.model import Image

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse


@dataclass(frozen=True)
class Bootstrap:
    """The body of `POST /bothy/images/bootstrap`."""

    source: str = ""
    name: str = ""
    include: list[str] = field(default_factory=list)


async def prepare(call: Call) -> StreamResponse:
    """Make what a machine needs before its first start (template, disk), telling how it goes."""
    workload = call.engine.containers.get(call.params["id"])

    async def work(progress: Progress) -> None:
        await call.engine.containers.prepare(workload.id, progress)

    return await streams.progress(call, work, lambda _: [{"done": True}])


async def bootstrap(call: Call) -> StreamResponse:
    """Make a base image out of the distribution's packages, telling how it goes."""
    asked = await call.typed(Bootstrap)
    if not asked.source:
        raise Invalid("invalid request: Source: missing", hint="name what to make an image of: debian:bookworm, busybox")

    async def work(progress: Progress) -> Image:
        return await call.engine.images.bootstrap(asked.source, asked.name, asked.include, progress)

    def last(image: Image) -> list[dict[str, object]]:
        return [{"id": image.id, "name": asked.name or next(iter(image.repo_tags), "")}]

    return await streams.progress(call, work, last)


async def templates(call: Call) -> StreamResponse:
    """What was prepared for machines, with its size and its use."""
    return replies.reply(await call.engine.templates.list())


async def remove_template(call: Call) -> StreamResponse:
    """Forget a template; the next machine of its kind makes it again."""
    await call.engine.templates.remove(call.params["key"])
    return replies.nothing()


async def prune_templates(call: Call) -> StreamResponse:
    """Forget the templates that no machine uses; answers with their keys."""
    return replies.reply({"TemplatesDeleted": await call.engine.templates.prune()})


async def shutdown(call: Call) -> StreamResponse:
    """Ask the daemon to end, as SIGTERM does; what runs goes on. With `teardown` it takes its network and cgroups with it."""
    call.engine.teardown_asked = call.flag("teardown")
    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
    return replies.nothing(202)
