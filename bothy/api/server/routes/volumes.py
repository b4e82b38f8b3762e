"""/volumes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bothy.api.server import replies
from bothy.api.server.call import Call
from bothy.errors import Unavailable

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse

_ANONYMOUS_ONLY = (1, 42)  # the API since which a prune leaves volumes with a name alone


@dataclass(frozen=True)
class VolumeCreate:
    """The body of `POST /volumes/create`."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


async def listing(call: Call) -> StreamResponse:
    """`GET /volumes`."""
    return replies.reply({"Volumes": await call.engine.volumes.list(call.filters()), "Warnings": None})


async def inspect(call: Call) -> StreamResponse:
    """`GET /volumes/{name}`."""
    return replies.reply(await call.engine.volumes.get(call.params["name"]))


async def create(call: Call) -> StreamResponse:
    """A volume, with a name of the engine's choice if the body has none; one that is there is answered as it is."""
    asked = await call.typed(VolumeCreate)
    made = await call.engine.volumes.create(asked.name, asked.driver or "local", asked.labels, asked.driver_opts)
    return replies.reply(made, 201)


async def update(call: Call) -> StreamResponse:
    """`PUT /volumes/{name}`: for volumes of a swarm only, also in Docker."""
    await call.engine.volumes.get(call.params["name"])
    raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")


async def remove(call: Call) -> StreamResponse:
    """Remove a volume that nothing uses, with what is in it."""
    await call.engine.volumes.remove(call.params["name"], force=call.flag("force"))
    return replies.nothing()


async def prune(call: Call) -> StreamResponse:
    """Remove volumes that nothing uses; answers with their names and the bytes they took."""
    filters = call.filters()
    if call.version < _ANONYMOUS_ONLY:
        filters["all"] = ["true"]
    removed, freed = await call.engine.volumes.prune(filters)
    return replies.reply({"VolumesDeleted": removed, "SpaceReclaimed": freed})
