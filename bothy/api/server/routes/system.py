"""The engine as a whole: ping, version, info, disk usage, events; and what a node outside a swarm says."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bothy.api.server import replies, streams
from bothy.api.server.call import Call
from bothy.api.server.replies import dotted
from bothy.api.server.schema import containers as container_shape
from bothy.api.server.schema import events as shape
from bothy.engine import times
from bothy.errors import Invalid, Unsupported

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse

    from bothy.api.server.router import Handler

_PING = {
    "Builder-Version": "1",
    "Swarm": "inactive",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
}


async def ping(call: Call) -> StreamResponse:
    """`GET /_ping`: that somebody is here, and (in headers) which API is spoken."""
    return replies.text("OK", _PING)


async def version(call: Call) -> StreamResponse:
    """`GET /version`: the engine's, and the API versions from the oldest to the newest that is spoken."""
    spoken = {"ApiVersion": dotted(replies.API_VERSION), "MinAPIVersion": dotted(replies.MIN_API_VERSION)}
    return replies.reply({**await call.engine.system.version(), **spoken})


async def info(call: Call) -> StreamResponse:
    """`GET /info`: the host, what it can do, and what is on it."""
    return replies.reply(await call.engine.system.info())


async def df(call: Call) -> StreamResponse:
    """`GET /system/df`: what takes how much disk."""
    found, now = await call.engine.system.df(), time.time()
    workloads = {w.id: w for w in call.engine.containers.list(all_=True, limit=0, filters={})}
    for entry in found.get("Containers", ()):
        if workload := workloads.get(entry["Id"]):
            entry.update(container_shape.summary(workload, now, (entry["SizeRw"], entry["SizeRootFs"])))
    return replies.reply(found)


async def events(call: Call) -> StreamResponse:
    """What happens, a line each, until `until` or for ever."""
    since, until = times.instant(call.text("since")), times.instant(call.text("until"))
    if since and until and since > until:
        raise Invalid(f"`since` time ({call.text('since')}) cannot be after `until` time ({call.text('until')})")
    async with streams.ahead(call.engine.events.subscribe(since, until, call.filters())) as entries:
        stream = replies.Stream(call)
        await stream.begin()
        async for entry in entries:
            await stream.line(shape.event(entry))
        return await stream.end()


async def plugins(call: Call) -> StreamResponse:
    """There are none."""
    return replies.reply([])


async def no_cache(call: Call) -> StreamResponse:
    """Nothing is built here, so there is nothing to prune (`docker system prune` asks for it)."""
    return replies.reply({"CachesDeleted": [], "SpaceReclaimed": 0})


async def no_swarm(call: Call) -> StreamResponse:
    return replies.message(503, "This node is not a swarm manager. bothy is one engine on one machine.")


def unsupported(what: str, hint: str = "") -> Handler:
    """A handler for what Docker has and bothy does not have: it says so."""

    async def handler(call: Call) -> StreamResponse:
        raise Unsupported(f"{what} is not supported", hint=hint)

    return handler
