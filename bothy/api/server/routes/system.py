"""The engine as a whole: ping, version, info, disk usage, events; and what a node outside a swarm says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bothy.api.server import replies
from bothy.api.server.call import Call
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
    return replies.text("OK", _PING)


async def version(call: Call) -> StreamResponse:
    low, high = ("{}.{}".format(*v) for v in (replies.MIN_API_VERSION, replies.API_VERSION))
    return replies.reply({**await call.engine.system.version(), "ApiVersion": high, "MinAPIVersion": low})


async def info(call: Call) -> StreamResponse:
    return replies.reply(await call.engine.system.info())


async def df(call: Call) -> StreamResponse:
    return replies.reply(await call.engine.system.df())


async def events(call: Call) -> StreamResponse:
    """What happens, a line each, until `until` or for ever."""
    since, until = times.instant(call.text("since")), times.instant(call.text("until"))
    if since and until and since > until:
        raise Invalid(f"`since` time ({call.text('since')}) can not be after `until` time ({call.text('until')})")
    entries = aiter(call.engine.events.subscribe(since, until, call.filters()))
    # The subscription begins with the first request for an event: before the head goes out, for a client may act on that.
    first = asyncio.ensure_future(anext(entries, None))
    await asyncio.sleep(0)
    if first.done():
        first.result()
    stream = replies.Stream(call)
    try:
        await stream.begin()
        entry = await first
        while entry is not None:
            await stream.line(shape.event(entry))
            entry = await anext(entries, None)
    finally:
        first.cancel()
    return await stream.end()


async def plugins(call: Call) -> StreamResponse:
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
