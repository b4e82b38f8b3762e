"""/images. Nothing is fetched from a registry here: what asks for it is told what to do instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bothy.api.server import replies, streams
from bothy.api.server.backend import Progress
from bothy.api.server.call import Call
from bothy.api.server.schema import images as shape
from bothy.errors import Invalid, Unsupported
from bothy.images.model import Image

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse

TAR = "application/x-tar"
INSTEAD = "bothy load -i FILE, bothy import FILE NAME or bothy image bootstrap debian:bookworm put an image here"


async def listing(call: Call) -> StreamResponse:
    """`GET /images/json`, newest first."""
    return replies.reply([shape.summary(image) for image in await call.engine.images.list(call.filters())])


async def inspect(call: Call) -> StreamResponse:
    """`GET /images/{name}/json`."""
    return replies.reply(shape.inspect(await call.engine.images.get(call.params["name"])))


async def history(call: Call) -> StreamResponse:
    """`GET /images/{name}/history`: the steps in which it was made, newest first."""
    return replies.reply(await call.engine.images.history(call.params["name"]))


async def tag(call: Call) -> StreamResponse:
    """One more name for an image."""
    await call.engine.images.tag(call.params["name"], call.required("repo"), call.text("tag"))
    return replies.nothing(201)


async def remove(call: Call) -> StreamResponse:
    """Take a name away, and the image with its last one; answers with each thing done."""
    name = call.params["name"]
    return replies.reply(await call.engine.images.remove(name, force=call.flag("force"), noprune=call.flag("noprune")))


async def prune(call: Call) -> StreamResponse:
    """Remove the images that no workload uses (those without a name, unless `dangling=false`)."""
    deleted, freed = await call.engine.images.prune(call.filters())
    return replies.reply({"ImagesDeleted": deleted, "SpaceReclaimed": freed})


async def load(call: Call) -> StreamResponse:
    """An archive in the body; progress, then the names of what it had."""
    with streams.spool_file(call) as path:
        if not await streams.spool(call, path):
            raise Invalid("the request's body is empty", hint="send an image archive")

        async def work(progress: Progress) -> list[str]:
            told = (lambda words: None) if call.flag("quiet") else progress
            return await call.engine.images.load(path, told)

        return await streams.progress(call, work, lambda names: [{"stream": f"Loaded image: {n}\n"} for n in names])


async def create(call: Call) -> StreamResponse:
    """Import a root file system (`fromSrc=-`). Pulling is not done here."""
    source = call.text("fromSrc")
    if source != "-":
        what = source or call.text("fromImage")
        if not what:
            raise Invalid("parameter 'fromImage' or 'fromSrc' is missing", hint="fromSrc=- imports the tar archive in the body")
        await call.body()
        if call.text("tag") and ":" not in what.rpartition("/")[2]:
            what = f"{what}:{call.text('tag')}"
        raise Unsupported(f"{what} can not be fetched: pulling from a registry is not supported", hint=INSTEAD)
    with streams.spool_file(call) as path:
        if not await streams.spool(call, path):
            raise Invalid("the request's body is empty", hint="send a root file system as a tar archive")

        async def work(progress: Progress) -> Image:
            repo, tag_, message = call.text("repo"), call.text("tag"), call.text("message")
            return await call.engine.images.import_(path, repo, tag_, message, call.values("changes"))

        return await streams.progress(call, work, lambda image: [{"status": image.id}])


async def save(call: Call) -> StreamResponse:
    """One or several images as a docker archive."""
    names = [call.params["name"]] if "name" in call.params else [n for value in call.values("names") for n in value.split(",") if n]
    if not names:
        raise Invalid("parameter 'names' is missing", hint="name the images to save")
    with streams.spool_file(call) as path:
        await call.engine.images.save(names, path)
        return await streams.send_file(call, path, TAR)
