"""/containers: what has a short answer. Streams are in `container_streams`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from bothy.api.server import replies
from bothy.api.server.call import Call, read
from bothy.api.server.schema import containers as shape
from bothy.engine.model import Config, HostConfig, NetworkingConfig
from bothy.errors import Invalid

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse


async def listing(call: Call) -> StreamResponse:
    """`GET /containers/json`: those that run, or (with `all`, `limit` or a filter that asks for others) all of them."""
    limit = call.integer("limit") or 0
    filters = call.filters()
    everything = call.flag("all") or limit > 0 or any(word in filters for word in ("status", "exited", "before", "since"))
    found = call.engine.containers.list(all_=everything, limit=max(limit, 0), filters=filters)
    now = time.time()
    if not call.flag("size"):
        return replies.made(call.context.shown.listing(found, now))
    sizes = await call.engine.containers.sizes()
    return replies.reply([shape.summary(w, now, sizes.get(w.id, (0, 0))) for w in found])


async def create(call: Call) -> StreamResponse:
    """The body is a Config with HostConfig and NetworkingConfig beside its fields."""
    data = await call.data()
    if not data:
        raise Invalid("config cannot be empty in order to create a container", hint="send the container's configuration as JSON")
    config = read(Config, data, "Config")
    host_config = read(HostConfig, _object(data, "HostConfig"), "HostConfig")
    networking = read(NetworkingConfig, _object(data, "NetworkingConfig"), "NetworkingConfig")
    workload, warnings = await call.engine.containers.create(
        call.text("name"), config, host_config, networking, call.text("platform")
    )
    return replies.reply({"Id": workload.id, "Warnings": warnings}, 201)


def _object(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key) or {}
    if not isinstance(value, dict):
        raise Invalid(f"invalid request: {key}: expected an object, got {type(value).__name__}")
    return value


async def inspect(call: Call) -> StreamResponse:
    """`GET /containers/{id}/json`; the sizes with `size`, for they take a walk through the folders."""
    workload = call.engine.containers.get(call.params["id"])
    folder, execs = call.context.paths.container(workload.id), call.engine.execs.running(workload.id)
    if not call.flag("size"):
        return replies.made(call.context.shown.inspect(workload, folder, execs))
    size = (await call.engine.containers.sizes()).get(workload.id, (0, 0))
    return replies.reply(shape.inspect(workload, folder, execs, size))


async def start(call: Call) -> StreamResponse:
    """Answers when the program runs; 304 if it does already."""
    await call.engine.containers.start(call.params["id"])
    return replies.nothing()


async def stop(call: Call) -> StreamResponse:
    """Ask the program to end, make it after `t` seconds (-1: never); answers when it has ended."""
    await call.engine.containers.stop(call.params["id"], call.integer("t"), call.text("signal"))
    return replies.nothing()


async def restart(call: Call) -> StreamResponse:
    """Stop, and start again."""
    await call.engine.containers.restart(call.params["id"], call.integer("t"), call.text("signal"))
    return replies.nothing()


async def kill(call: Call) -> StreamResponse:
    """Send a signal (a name or a number) to the program."""
    await call.engine.containers.kill(call.params["id"], call.text("signal", "KILL") or "KILL")
    return replies.nothing()


async def pause(call: Call) -> StreamResponse:
    """Freeze all processes."""
    await call.engine.containers.pause(call.params["id"])
    return replies.nothing()


async def unpause(call: Call) -> StreamResponse:
    """Let frozen processes go on."""
    await call.engine.containers.unpause(call.params["id"])
    return replies.nothing()


async def update(call: Call) -> StreamResponse:
    """Other limits and another restart policy; answers with warnings. The body has HostConfig's fields."""
    data = await call.data()
    warnings = await call.engine.containers.update(call.params["id"], read(HostConfig, data, "UpdateConfig"))
    return replies.reply({"Warnings": warnings})


async def rename(call: Call) -> StreamResponse:
    """Give it the name of the parameter `name`."""
    if not (name := call.text("name")):
        raise Invalid("neither old nor new names may be empty", hint="the parameter 'name' is missing")
    await call.engine.containers.rename(call.params["id"], name)
    return replies.nothing()


async def resize(call: Call) -> StreamResponse:
    """Tell its terminal `h` rows and `w` columns."""
    height, width = size_of(call)
    await call.engine.containers.resize(call.params["id"], height, width)
    return replies.nothing(200)


def size_of(call: Call) -> tuple[int, int]:
    """`h` and `w` of a terminal. Raises Invalid for sizes that a terminal can not have."""
    height, width = call.integer("h"), call.integer("w")
    if height is None or width is None or not (0 <= height <= 65535 and 0 <= width <= 65535):
        raise Invalid(
            f"invalid size of a terminal: h={call.text('h')!r}, w={call.text('w')!r}", hint="rows and columns, each 0 to 65535"
        )
    return height, width


async def top(call: Call) -> StreamResponse:
    """Its processes, as `ps` with `ps_args` lists them."""
    titles, processes = await call.engine.containers.top(call.params["id"], call.text("ps_args", "-ef") or "-ef")
    return replies.reply({"Titles": titles, "Processes": processes})


async def remove(call: Call) -> StreamResponse:
    """With `force` also one that runs, with `v` its anonymous volumes too."""
    if call.flag("link"):
        raise Invalid("links are not supported", hint="use a network: names are found there")
    await call.engine.containers.remove(call.params["id"], force=call.flag("force"), volumes=call.flag("v"))
    return replies.nothing()


async def prune(call: Call) -> StreamResponse:
    """Remove those that do not run; answers with their ids and the bytes they took."""
    removed, freed = await call.engine.containers.prune(call.filters())
    return replies.reply({"ContainersDeleted": removed, "SpaceReclaimed": freed})
