"""/networks: the ones that are there from the start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bothy.api.server import replies
from bothy.api.server.call import Call
from bothy.api.server.schema import networks as shape

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse


async def listing(call: Call) -> StreamResponse:
    """`GET /networks`."""
    return replies.reply([shape.network(n) for n in await call.engine.networks.list(call.filters())])


async def inspect(call: Call) -> StreamResponse:
    """`GET /networks/{id}`, with the workloads that are on it."""
    found = await call.engine.networks.get(call.params["id"])
    running = [w for w in call.engine.containers.list(all_=False, limit=0, filters={}) if w.status.is_up]
    return replies.reply(shape.network(found, running))


async def prune(call: Call) -> StreamResponse:
    """The networks that are there from the start are never pruned, and there are no others."""
    return replies.reply({"NetworksDeleted": []})
