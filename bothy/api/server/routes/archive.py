"""/containers/{id}: archive (of /bothy/volumes/{volume} too), export, changes; and /commit.

Archives pass through, in pieces; nothing is kept of them.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from bothy.api.server import replies
from bothy.api.server.call import Call, read
from bothy.engine.model import Config, FileStatus
from bothy.errors import Invalid

if TYPE_CHECKING:
    from aiohttp.web_response import StreamResponse

    from bothy.api.server.backend import Archives

TAR = "application/x-tar"
STAT = "X-Docker-Container-Path-Stat"


def stat_header(status: FileStatus) -> dict[str, str]:
    """What Docker's clients read of a file: base64 of JSON, the mode in Go's bits, the time with nanoseconds."""
    seconds, rest = divmod(status.mtime, 1_000_000_000)
    try:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError):
        stamp, rest = "0001-01-01T00:00:00", 0
    fraction = f".{rest:09d}".rstrip("0").rstrip(".")
    told = {
        "name": status.name,
        "size": status.size,
        "mode": status.mode,
        "mtime": f"{stamp}{fraction}Z",
        "linkTarget": status.link_target,
    }
    return {STAT: base64.b64encode(json.dumps(told).encode()).decode()}


async def stat(call: Call) -> StreamResponse:
    """`HEAD archive`: what is at a path."""
    files, ref = _files(call)
    status = await files.status(ref, _path(call))
    response = replies.nothing(200)
    response.headers.update(stat_header(status))
    return response


async def get(call: Call) -> StreamResponse:
    """`GET archive`: what is at a path, as a tar."""
    (files, ref), path, stream = _files(call), _path(call), replies.Stream(call, TAR)
    async with stream.whole_or_broken(), files.archive(ref, path, shown=call.text("as")) as (status, pieces):
        stream.response.headers.update(stat_header(status))
        async for piece in pieces:
            await stream.send(piece)
    return await stream.end()


async def put(call: Call) -> StreamResponse:
    """`PUT archive`: unpack the body's tar, compressed or not, in the folder at a path."""
    files, ref = _files(call)
    await files.extract(ref, _path(call), _body(call), strict=call.flag("noOverwriteDirNonDir"), as_user=call.flag("copyUIDGID"))
    return replies.nothing(200)


async def export(call: Call) -> StreamResponse:
    """The root file system as a tar, without what is mounted in it."""
    stream = replies.Stream(call, TAR)
    async with stream.whole_or_broken(), call.engine.files.export(call.params["id"]) as pieces:
        async for piece in pieces:
            await stream.send(piece)
    return await stream.end()


async def changes(call: Call) -> StreamResponse:
    """What was modified (0), added (1) and deleted (2)."""
    found = await call.engine.files.changes(call.params["id"])
    return replies.reply([{"Path": change.path, "Kind": change.kind} for change in found])


async def commit(call: Call) -> StreamResponse:
    """An image of a container as it is. The body may have a configuration for it."""
    config = read(Config, await call.data(), "Config")
    repository, tag = call.text("repo"), call.text("tag")
    if not repository and tag:
        raise Invalid("parameter 'repo' is missing", hint="a tag needs a name")
    image = await call.engine.files.commit(
        call.required("container"),
        config,
        name=f"{repository}:{tag}" if tag else repository,
        comment=call.text("comment"),
        author=call.text("author"),
        pause=call.flag("pause", default=True),
        instructions=[line for value in call.values("changes") for line in value.split("\n") if line.strip()],
    )
    return replies.reply({"Id": image}, 201)


def _files(call: Call) -> tuple[Archives, str]:
    """Whose archive it is: a container's, or a volume's."""
    if "volume" in call.params:
        return call.engine.volume_files, call.params["volume"]
    return call.engine.files, call.params["id"]


def _path(call: Call) -> str:
    path = call.text("path")
    if not path:
        raise Invalid("bad parameter: 'path' cannot be empty")
    if "\0" in path:
        raise Invalid("bad parameter: 'path' has a zero byte in it")
    return path


async def _body(call: Call) -> AsyncIterator[bytes]:
    """The request's body as it comes. Raises Invalid for one that breaks off."""
    try:
        async for data in call.request.content.iter_any():
            yield data
    except ConnectionError:
        raise
    except Exception as exc:  # aiohttp's several ways to say that a body ended early
        raise Invalid(f"the request's body broke off: {exc}") from exc
